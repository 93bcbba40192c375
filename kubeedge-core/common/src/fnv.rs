//! FNV-1a: a number that stands for bytes. Not for what an attacker chooses.

/// 64 bits.
pub fn fnv64(bytes: &[u8]) -> u64 {
    fnv64_from(0xcbf2_9ce4_8422_2325, bytes)
}

/// 64 bits, begun with a salt or with the number of what stands before.
pub fn fnv64_from(begin: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(begin, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// 32 bits.
pub fn fnv32(bytes: &[u8]) -> u32 {
    let add = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811c_9dc5, add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_texts_have_their_known_numbers() {
        assert_eq!((fnv32(b""), fnv64(b"")), (0x811c_9dc5, 0xcbf2_9ce4_8422_2325));
        assert_eq!((fnv32(b"foobar"), fnv64(b"foobar")), (0xbf9c_f968, 0x8594_4171_f739_67e8));
    }
}
