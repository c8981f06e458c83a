// SPDX-License-Identifier: GPL-2.0

// Answers each request with "RemoteAddr getpeername protocol": the client that
// net/http has from accept, the client that getpeername returns, and the protocol
// of the listening socket. The arguments are networks and addresses to listen on,
// such as "tcp4 0.0.0.0:8101".
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
)

type connKey struct{}

func main() {
	failed := make(chan error)
	for rest := os.Args[1:]; len(rest) >= 2; rest = rest[2:] {
		listener, err := net.Listen(rest[0], rest[1])
		if err != nil {
			log.Fatal(err)
		}
		go func() { failed <- serve(listener.(*net.TCPListener)) }()
	}
	log.Fatal(<-failed)
}

func serve(listener *net.TCPListener) error {
	protocol := 0
	err := onSocket(listener, func(fd int) (err error) {
		protocol, err = syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_PROTOCOL)
		return err
	})
	if err != nil {
		return err
	}
	server := http.Server{
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, conn)
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			peer, err := peerOf(r.Context().Value(connKey{}).(*net.TCPConn))
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			fmt.Fprintf(w, "%s %s %d\n", r.RemoteAddr, peer, protocol)
		}),
	}
	return server.Serve(listener)
}

// peerOf calls getpeername, and formats the address as package net does.
func peerOf(conn *net.TCPConn) (peer netip.AddrPort, err error) {
	err = onSocket(conn, func(fd int) error {
		name, err := syscall.Getpeername(fd)
		switch name := name.(type) {
		case *syscall.SockaddrInet4:
			peer = netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port))
		case *syscall.SockaddrInet6:
			address := netip.AddrFrom16(name.Addr).Unmap()
			peer = netip.AddrPortFrom(address, uint16(name.Port))
		}
		return err
	})
	return peer, err
}

func onSocket(conn syscall.Conn, job func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var jobErr error
	if err := raw.Control(func(fd uintptr) { jobErr = job(int(fd)) }); err != nil {
		return err
	}
	return jobErr
}
