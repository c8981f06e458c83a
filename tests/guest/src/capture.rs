// SPDX-License-Identifier: GPL-2.0

//! A capture of an interface by tcpdump, and the TCP segments in it.

use std::fs::File;
use std::io::BufReader;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::ChildStderr;
use std::process::Command;
use std::process::Stdio;

use etherparse::NetSlice;
use etherparse::SlicedPacket;
use etherparse::TransportSlice;
use nix::sys::signal::Signal;
use pcap_file::pcap::PcapReader;
use pcap_file::DataLink;

use crate::namespace::Namespace;
use crate::process;
use crate::process::Process;
use crate::wait;

/// A running capture.
pub struct Capture {
    tcpdump: Process,
    /// The pipe must stay open: tcpdump prints its counters at its end.
    _said: BufReader<ChildStderr>,
    file: PathBuf,
}

impl Capture {
    /// Starts tcpdump; returns when it captures packets.
    #[track_caller]
    pub fn start(namespace: &Namespace, interface: &str, file: &Path) -> Self {
        let mut command = Command::new("tcpdump");
        command
            .args(["-n", "-U", "--immediate-mode", "-Z", "root"])
            // The kernel's ring of the default size holds eight packets, and drops others if
            // tcpdump does not run in time. This ring holds 256, merged packets included.
            .args(["-s", "65535", "-B", "16384"])
            .args(["-i", interface, "-w"])
            .arg(file)
            .stderr(Stdio::piped());
        let mut tcpdump = Process::start_in(namespace, &mut command, Signal::SIGINT);
        let said = tcpdump.child().stderr.take().expect("stderr is piped");
        Self {
            _said: process::wait_for_line(said, "listening on"),
            tcpdump,
            file: file.to_owned(),
        }
    }

    /// Waits until `fins` segments with a FIN are captured, and ends tcpdump.
    #[track_caller]
    pub fn finish(self, fins: usize) -> Vec<Segment> {
        let segments = wait::until("the last segment is captured", || {
            let segments = read(&self.file);
            let found = segments.iter().filter(|segment| segment.fin).count();
            if found < fins {
                return Err(format!("{found} of {fins} FINs"));
            }
            Ok(segments)
        });
        drop(self.tcpdump);
        segments
    }
}

/// Length of the header: two addresses and a type, without a VLAN.
const ETHERNET_HEADER: usize = 14;

/// Returns the segments in a capture file, to which tcpdump may still write.
fn read(file: &Path) -> Vec<Segment> {
    let file = File::open(file).expect("tcpdump has made its file");
    let Ok(mut reader) = PcapReader::new(file) else {
        return Vec::new();
    };
    let frame = match reader.header().datalink {
        DataLink::ETHERNET => ETHERNET_HEADER,
        _ => 0,
    };
    let mut segments = Vec::new();
    while let Some(Ok(packet)) = reader.next_packet() {
        segments.extend(packet.data.get(frame..).and_then(Segment::parse));
    }
    segments
}

/// The fields of a TCP segment that the tests check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub source: SocketAddr,
    pub target: SocketAddr,
    pub syn: bool,
    pub ack: bool,
    pub fin: bool,
    pub rst: bool,
    pub sequence: u32,
    /// The segment's acknowledgement number.
    pub next: u32,
    pub payload: usize,
    pub data: Vec<u8>,
    /// Kind and contents of each option, without NOP and EOL.
    pub options: Vec<(u8, Vec<u8>)>,
}

impl Segment {
    /// Parses an IP packet; returns None if the packet is not TCP.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let packet = SlicedPacket::from_ip(packet).ok()?;
        let (source, target): (IpAddr, IpAddr) = match packet.net? {
            NetSlice::Ipv4(ip) => (
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
            ),
            NetSlice::Ipv6(ip) => (
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
            ),
            NetSlice::Arp(_) => return None,
        };
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
            return None;
        };
        Some(Self {
            source: SocketAddr::new(source, tcp.source_port()),
            target: SocketAddr::new(target, tcp.destination_port()),
            syn: tcp.syn(),
            ack: tcp.ack(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            sequence: tcp.sequence_number(),
            next: tcp.acknowledgment_number(),
            payload: tcp.payload().len(),
            data: tcp.payload().to_vec(),
            options: split_options(tcp.options()),
        })
    }

    /// Returns the contents of the segment's options of that kind.
    pub fn options_of_kind(&self, kind: u8) -> Vec<&[u8]> {
        let wanted = self.options.iter().filter(|(found, _)| *found == kind);
        wanted.map(|(_, contents)| contents.as_slice()).collect()
    }
}

/// Splits options by RFC 9293 §3.1: kinds 0 and 1 are single bytes, others have a length.
fn split_options(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut options = Vec::new();
    loop {
        bytes = match bytes {
            [] | [0, ..] => return options,
            [1, rest @ ..] => rest,
            [kind, length, ..] => {
                let length = usize::from(*length);
                let Some(contents) = bytes.get(2..length) else {
                    return options;
                };
                options.push((*kind, contents.to_vec()));
                &bytes[length..]
            }
            [_] => return options,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split() {
        let found = split_options(&[1, 254, 4, 7, 8, 1, 2, 3, 9, 0, 5]);
        assert_eq!(found, [(254, vec![7, 8]), (2, vec![9])]);
    }

    #[test]
    fn a_bad_length_ends_the_options() {
        assert_eq!(split_options(&[254, 1, 0]), []);
        assert_eq!(split_options(&[254, 9, 0]), []);
        assert_eq!(split_options(&[254]), []);
    }
}
