// SPDX-License-Identifier: MIT OR Apache-2.0

package toapeer

import (
	"net/netip"
	"testing"
)

// answerOf builds an answer from its bytes, in the format of the module's lookup.rs.
func answerOf(t *testing.T, bytes string) answer {
	t.Helper()
	if len(bytes) != len(answer{}) {
		t.Fatalf("%q has %d bytes", bytes, len(bytes))
	}
	return answer([]byte(bytes))
}

func TestAnswerIsDecoded(t *testing.T) {
	for _, test := range []struct {
		name, bytes, expected string
	}{
		{
			"IPv6",
			"\x20\x01\x0d\xb8\x00\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07\x12\x34\x00\x00",
			"[2001:db8:7::7]:4660",
		},
		{
			"mapped IPv4 becomes IPv4",
			"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xcb\x00\x71\x07\x12\x34\x00\x00",
			"203.0.113.7:4660",
		},
		{
			"compatible IPv4 stays IPv6",
			"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xcb\x00\x71\x07\x00\x01\x00\x00",
			"[::cb00:7107]:1",
		},
		{
			"padding is ignored",
			"\x20\x01\x0d\xb8\x00\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07\xff\xfe\xaa\x55",
			"[2001:db8:7::7]:65534",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := answerOf(t, test.bytes).addrPort()
			if expected := netip.MustParseAddrPort(test.expected); got != expected {
				t.Errorf("got %v, expected %v", got, expected)
			}
		})
	}
}
