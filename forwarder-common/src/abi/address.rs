//! IP addresses as they stand in a packet.

/// An IP address as packet words; IPv4 is held as `::ffff:a.b.c.d`.
pub type Address = [u32; 4];

/// The third word of an IPv4 address in an [`Address`].
pub const V4_MAPPED: u32 = 0xffff_u32.to_be();

/// An [`Address`] from the four bytes of an IPv4 address.
#[must_use]
pub const fn address_v4(octets: [u8; 4]) -> Address {
    [0, 0, V4_MAPPED, u32::from_ne_bytes(octets)]
}

/// An [`Address`] from the sixteen bytes of an IPv6 address.
#[must_use]
pub const fn address_v6(o: [u8; 16]) -> Address {
    [
        u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
        u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
        u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
        u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
    ]
}

/// Whether an [`Address`] is an IPv4 one.
#[must_use]
#[inline(always)]
pub const fn is_v4(address: &Address) -> bool {
    address[0] == 0 && address[1] == 0 && address[2] == V4_MAPPED
}

/// Whether two addresses are one, without a branch for each word.
#[must_use]
#[inline(always)]
pub const fn same(one: &Address, other: &Address) -> bool {
    let [a, b, c, d] = *one;
    let [e, f, g, h] = *other;
    (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
}
