//! Client addresses for per-address limits.

use std::net::{IpAddr, Ipv6Addr};

/// The IPv4 address itself; of an IPv6 address its /64, since one customer has a whole /64 (RFC 6177). IPv4-mapped IPv6
/// addresses count as IPv4.
pub fn network_prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_counts_as_its_64_and_an_ipv4_address_as_itself() {
        let prefix = |address: &str| network_prefix(address.parse().unwrap()).to_string();
        assert_eq!(prefix("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(prefix("192.0.2.1"), "192.0.2.1");
        assert_eq!(prefix("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
