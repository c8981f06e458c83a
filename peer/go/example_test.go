// SPDX-License-Identifier: MIT OR Apache-2.0

package toapeer_test

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"syscall"

	"toa/toapeer"
)

// A connection within this machine passes no balancer.
func ExampleOf() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	conn, err := listener.Accept()
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	peer, err := toapeer.Of(conn)
	switch {
	case errors.Is(err, syscall.ENOTCONN):
		fmt.Println("the client has disconnected")
	case err != nil:
		log.Fatal(err)
	default:
		fmt.Println(peer.Client.Addr(), "by", peer.Origin)
		fmt.Println("over a balancer:", peer.Balancer.IsValid())
	}
	// Output:
	// 127.0.0.1 by getpeername
	// over a balancer: false
}

// Make a feature depend on the source of the address.
func ExampleClientByTOA() {
	serve := func(conn net.Conn) error {
		client, err := toapeer.ClientByTOA(conn)
		if err != nil {
			return err
		}
		if client.IsValid() {
			log.Print("the balancer sent ", client)
		} else {
			log.Print("no client from a balancer")
		}
		return nil
	}
	_ = serve
}

// An HTTP server whose requests have the client in RemoteAddr.
func ExampleNewListener() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "hello %s", host)
	})}
	defer server.Close()
	go server.Serve(toapeer.NewListener(listener))

	response, err := http.Get("http://" + listener.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(body))
	// Output:
	// hello 127.0.0.1
}
