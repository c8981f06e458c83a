// SPDX-License-Identifier: MIT OR Apache-2.0

package toapeer

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"syscall"
)

func (s socket) ask(option int) (netip.AddrPort, error) {
	var found netip.AddrPort
	var reported error
	err := s.raw.Control(func(fd uintptr) {
		found, reported = read(getsockopt(int(fd), option))
	})
	if err != nil {
		return netip.AddrPort{}, err
	}
	return found, reported
}

// getsockopt returns the 20 bytes of an option. The standard library reads options of
// this size into an IPv6Mreq: 16 bytes, and four that it takes for a number.
func getsockopt(fd, option int) (answer, error) {
	var bytes answer
	mreq, err := syscall.GetsockoptIPv6Mreq(fd, syscall.IPPROTO_IP, option)
	if err != nil {
		return bytes, err
	}
	copy(bytes[:16], mreq.Multiaddr[:])
	binary.NativeEndian.PutUint32(bytes[16:], mreq.Interface)
	return bytes, nil
}

// read interprets the result of getsockopt. The address is not valid if the module has no
// answer:
//   - ENOPROTOOPT: no module is loaded, or the socket is not TCP;
//   - EINVAL: the module has no client;
//   - EOPNOTSUPP: a true MPTCP connection, or a UNIX socket;
//   - EFAULT: DPVS's module, whose option answers only for clients that getpeername cannot
//     return. The buffer is valid, so the error has no other cause.
func read(bytes answer, err error) (netip.AddrPort, error) {
	switch {
	case err == nil:
		return bytes.addrPort(), nil
	case errors.Is(err, syscall.ENOPROTOOPT), errors.Is(err, syscall.EINVAL),
		errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.EFAULT):
		return netip.AddrPort{}, nil
	}
	return netip.AddrPort{}, os.NewSyscallError("getsockopt", err)
}
