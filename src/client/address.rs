//! What kind of address a host name led to. A document from outside must not make the gateway connect to addresses that
//! only it can reach (OWASP "Server Side Request Forgery Prevention"; RFC 6890 for the blocks).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// This machine.
    Loopback,
    /// This link: metadata services of clouds answer there (169.254.169.254).
    LinkLocal,
    /// A private network, or a block that is not for hosts on the internet.
    Private,
    /// The internet.
    Public,
}

/// The place of an address. IPv6 addresses that embed an IPv4 address are where that one is.
pub(super) fn place(address: IpAddr) -> Place {
    match address {
        IpAddr::V4(address) => place_v4(address),
        IpAddr::V6(address) => embedded(address).map_or_else(|| place_v6(address), place_v4),
    }
}

fn place_v4(address: Ipv4Addr) -> Place {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        // connecting to 0.0.0.0 reaches this machine
        (0 | 127, ..) => Place::Loopback,
        (169, 254, _) => Place::LinkLocal,
        // private networks; carrier-grade NAT, IETF assignments, documentation, 6to4 relays, benchmarks; multicast,
        // reserved, broadcast
        (10 | 224.., ..)
        | (172, 16..=31, _)
        | (192, 168, _)
        | (100, 64..=127, _)
        | (192, 0, 0 | 2)
        | (192, 88, 99)
        | (198, 18..=19, _)
        | (198, 51, 100)
        | (203, 0, 113) => Place::Private,
        _ => Place::Public,
    }
}

fn place_v6(address: Ipv6Addr) -> Place {
    let first = address.segments()[0];
    if address.is_loopback() || address.is_unspecified() {
        return Place::Loopback;
    }
    if first & 0xffc0 == 0xfe80 {
        return Place::LinkLocal;
    }
    // 2000::/3 is all that is assigned to hosts on the internet; documentation and Teredo are in it
    let is_special = first == 0x2001 && matches!(address.segments()[1], 0x0000..=0x01ff | 0x0db8);
    if first & 0xe000 == 0x2000 && !is_special { Place::Public } else { Place::Private }
}

/// The IPv4 address in a mapped or compatible one (`::` and `::1` are 0.0.0.0 and 0.0.0.1), NAT64 (RFC 6052) or 6to4 (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Some(from(high, low))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_an_inner_address_counts_as_public() {
        for (text, expected) in [
            ("127.0.0.1", Place::Loopback),
            ("127.255.0.3", Place::Loopback),
            ("0.0.0.0", Place::Loopback),
            ("::1", Place::Loopback),
            ("::", Place::Loopback),
            ("::ffff:127.0.0.1", Place::Loopback),
            ("::127.0.0.1", Place::Loopback),
            ("64:ff9b::7f00:1", Place::Loopback),
            ("2002:7f00:1::", Place::Loopback),
            ("169.254.169.254", Place::LinkLocal),
            ("::ffff:169.254.169.254", Place::LinkLocal),
            ("64:ff9b::a9fe:a9fe", Place::LinkLocal),
            ("fe80::1", Place::LinkLocal),
            ("10.0.0.1", Place::Private),
            ("172.31.255.255", Place::Private),
            ("192.168.1.1", Place::Private),
            ("100.64.0.1", Place::Private),
            ("198.18.0.1", Place::Private),
            ("224.0.0.1", Place::Private),
            ("255.255.255.255", Place::Private),
            ("fd00::1", Place::Private),
            ("fec0::1", Place::Private),
            ("ff02::1", Place::Private),
            ("2001:db8::1", Place::Private),
            ("2001::1", Place::Private),
            ("1.1.1.1", Place::Public),
            ("172.32.0.1", Place::Public),
            ("100.128.0.1", Place::Public),
            ("169.253.0.1", Place::Public),
            ("2606:4700::1111", Place::Public),
            ("2001:4860:4860::8888", Place::Public),
            ("::ffff:1.1.1.1", Place::Public),
            ("64:ff9b::101:101", Place::Public),
        ] {
            assert_eq!(place(text.parse().unwrap()), expected, "{text}");
        }
    }
}
