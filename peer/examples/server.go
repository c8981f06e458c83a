// SPDX-License-Identifier: MIT OR Apache-2.0

// Prints a line about each connection, and sends this line to the client.
//
//	go run server.go :: 8080
//	nc localhost 8080
//
// Go's listeners are MPTCP sockets by default, which makes no difference to clients that use
// plain TCP.
package main

import (
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"

	"toa/toapeer"
)

// line describes the client of a connection, and the balancer between.
func line(p toapeer.Peer) string {
	line := fmt.Sprintf("client %s port %d by %s", p.Client.Addr(), p.Client.Port(), p.Origin)
	if p.Balancer.IsValid() {
		line += fmt.Sprintf(", balancer %s port %d", p.Balancer.Addr(), p.Balancer.Port())
	}
	return line
}

func serve(conn net.Conn) error {
	defer conn.Close()
	peer, err := toapeer.Of(conn)
	if err != nil {
		return err
	}
	fmt.Println(line(peer))
	_, err = fmt.Fprintln(conn, line(peer))
	return err
}

// listen accepts only IPv4 on an IPv4 address; on :: it accepts IPv4 as well.
func listen(address, port string) (net.Listener, error) {
	network := "tcp"
	if ip, err := netip.ParseAddr(address); err == nil && ip.Is4() {
		network = "tcp4"
	}
	return net.Listen(network, net.JoinHostPort(address, port))
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: server ADDRESS PORT")
		os.Exit(2)
	}
	listener, err := listen(os.Args[1], os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			// The client may already have disconnected: serve the others.
			if err := serve(conn); err != nil {
				log.Print(err)
			}
		}()
	}
}
