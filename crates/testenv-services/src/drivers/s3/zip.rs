//! Archives of one file, as MinIO takes what it imports.

/// An archive with one file in it, not compressed. `None` when the file is too large for one.
pub(super) fn archive(name: &str, content: &[u8]) -> Option<Vec<u8>> {
    let (size, length) = (u32::try_from(content.len()).ok()?, u16::try_from(name.len()).ok()?);
    let mut common = Vec::new();
    // Version 2.0, no flags, stored, at the first moment that the format knows.
    for part in [20_u16, 0, 0, 0, 0x21] {
        common.extend(part.to_le_bytes());
    }
    for part in [checksum(content), size, size] {
        common.extend(part.to_le_bytes());
    }
    common.extend(length.to_le_bytes());
    common.extend(0_u16.to_le_bytes());

    let mut archive = b"PK\x03\x04".to_vec();
    archive.extend(&common);
    archive.extend(name.as_bytes());
    archive.extend(content);

    let directory = u32::try_from(archive.len()).ok()?;
    archive.extend(b"PK\x01\x02\x14\x00");
    archive.extend(&common);
    // No comment, the first disk, no attributes; the file is at the start.
    archive.extend([0; 14]);
    archive.extend(name.as_bytes());

    let end = u32::try_from(archive.len()).ok()?;
    archive.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    archive.extend((end - directory).to_le_bytes());
    archive.extend(directory.to_le_bytes());
    archive.extend(0_u16.to_le_bytes());
    Some(archive)
}

/// CRC-32, as the format wants it.
fn checksum(content: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    };
    !content.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
        assert_eq!(checksum(b""), 0);
    }

    #[test]
    fn an_archive_has_its_parts_where_it_says() {
        let archive = archive("a.json", b"{}").unwrap();
        let at = |offset: usize| u32::from_le_bytes(archive[offset..offset + 4].try_into().unwrap()) as usize;
        let end = archive.len() - 22;
        assert_eq!(&archive[end..end + 4], b"PK\x05\x06");
        let (size, directory) = (at(end + 12), at(end + 16));
        assert_eq!(directory + size, end);
        assert_eq!(&archive[directory..directory + 4], b"PK\x01\x02");
        assert_eq!(&archive[directory + 46..end], b"a.json");
        assert_eq!(&archive[30..38], b"a.json{}");
    }
}
