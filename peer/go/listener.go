// SPDX-License-Identifier: MIT OR Apache-2.0

package toapeer

import "net"

// NewListener returns a listener that accepts from inner. Each *[net.TCPConn] becomes a
// *[Conn], whose RemoteAddr is the client. Other connections stay unchanged.
//
// Accept closes a connection that has ended before Accept could find its client, and
// waits for the next one. The kernel's accept does the same.
//
// For TLS, pass the returned listener to tls.NewListener or http.Server.ServeTLS.
func NewListener(inner net.Listener) net.Listener {
	return &listener{inner, Of}
}

type listener struct {
	net.Listener
	of func(net.Conn) (Peer, error)
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			return conn, nil
		}
		peer, err := l.of(tcp)
		if err == nil {
			return &Conn{tcp, peer}, nil
		}
		tcp.Close()
		if !notConnected(err) {
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: err}
		}
	}
}

// Conn is a TCP connection whose RemoteAddr is the client. All other methods are those of
// [net.TCPConn], so that io.Copy still uses sendfile and splice.
type Conn struct {
	*net.TCPConn
	peer Peer
}

// RemoteAddr returns the client as a *[net.TCPAddr].
func (c *Conn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(c.peer.Client)
}

// Peer returns the peer that Accept found. Unlike [Of], it returns the peer also after
// the connection has ended.
func (c *Conn) Peer() Peer {
	return c.peer
}
