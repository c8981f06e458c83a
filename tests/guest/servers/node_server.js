// SPDX-License-Identifier: GPL-2.0
// A server that answers each request with its client's address and port.
// Arguments: the ports of an IPv4, an IPv6-only and a dual-stack socket.
const http = require('node:http');

const [v4, v6Only, dualStack] = process.argv.slice(2).map(Number);
const places = [
  { host: '0.0.0.0', port: v4 },
  { host: '::', port: v6Only, ipv6Only: true },
  { host: '::', port: dualStack },
];
for (const place of places) {
  http
    .createServer(({ socket }, response) => {
      response.end(`${socket.remoteAddress} ${socket.remotePort}\n`);
    })
    .listen(place);
}
