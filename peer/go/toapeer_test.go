// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build unix

package toapeer

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
)

// result is an answer of the module or of getpeername: an address, none, or an error.
type result struct {
	address string
	err     error
}

func (r result) get() (netip.AddrPort, error) {
	if r.address == "" {
		return netip.AddrPort{}, r.err
	}
	return netip.MustParseAddrPort(r.address), r.err
}

// fake is a socket with these answers. It records the questions.
type fake struct {
	client, balancer, getpeername result
	asked                         []string
}

func (f *fake) ask(option int) (netip.AddrPort, error) {
	if option == 4096 {
		f.asked = append(f.asked, "client")
		return f.client.get()
	}
	f.asked = append(f.asked, "balancer")
	return f.balancer.get()
}

func (f *fake) name() (netip.AddrPort, error) {
	f.asked = append(f.asked, "name")
	return f.getpeername.get()
}

func TestModuleIsAskedFirst(t *testing.T) {
	const client, balancer = "[2001:db8:7::7]:42275", "10.0.1.6:1025"
	ended := os.NewSyscallError("getsockopt", syscall.ENOTCONN)
	memory := os.NewSyscallError("getsockopt", syscall.ENOMEM)
	for _, test := range []struct {
		name     string
		fake     fake
		expected string
		err      error
		asked    string
	}{
		{
			"client and balancer",
			fake{client: result{address: client}, balancer: result{address: balancer}},
			client + " by toa, balancer " + balancer, nil, "client balancer",
		},
		{
			"a module without the option for the balancer",
			fake{client: result{address: client}},
			client + " by toa", nil, "client balancer",
		},
		{
			"connection that ends between the two questions",
			fake{client: result{address: client}, balancer: result{err: ended}},
			client + " by toa", nil, "client balancer",
		},
		{
			"another error for the balancer",
			fake{client: result{address: client}, balancer: result{err: memory}},
			"invalid AddrPort by getpeername", memory, "client balancer",
		},
		{
			"no client",
			fake{getpeername: result{address: balancer}},
			balancer + " by getpeername", nil, "client name",
		},
		{
			"connection that ends before the first question",
			fake{client: result{err: ended}, getpeername: result{address: balancer}},
			"invalid AddrPort by getpeername", ended, "client",
		},
		{
			"connection that ends before getpeername",
			fake{getpeername: result{err: ended}},
			"invalid AddrPort by getpeername", ended, "client name",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			peer, err := peerOf(&test.fake)
			if peer.String() != test.expected {
				t.Errorf("got %v, expected %v", peer, test.expected)
			}
			if !errors.Is(err, test.err) {
				t.Errorf("got error %v, expected %v", err, test.err)
			}
			if asked := strings.Join(test.fake.asked, " "); asked != test.asked {
				t.Errorf("asked for %s, expected %s", asked, test.asked)
			}
		})
	}
}

func TestOriginIsWrittenInOneWord(t *testing.T) {
	for origin, expected := range map[Origin]string{
		TOA: "toa", Getpeername: "getpeername", 7: "Origin(7)",
	} {
		if got := origin.String(); got != expected {
			t.Errorf("got %q, expected %q", got, expected)
		}
	}
}

func TestPeerIsWrittenForALog(t *testing.T) {
	peer := Peer{
		Client:   netip.MustParseAddrPort("[2001:db8:7::7]:42275"),
		Balancer: netip.MustParseAddrPort("10.0.1.6:1025"),
		Origin:   TOA,
	}
	if got, expected := peer.String(), "[2001:db8:7::7]:42275 by toa, balancer 10.0.1.6:1025"; got != expected {
		t.Errorf("got %q, expected %q", got, expected)
	}
	peer = Peer{Client: peer.Balancer}
	if got, expected := peer.String(), "10.0.1.6:1025 by getpeername"; got != expected {
		t.Errorf("got %q, expected %q", got, expected)
	}
}
