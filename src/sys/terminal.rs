//! What a terminal looks like.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Its width in columns (`TIOCGWINSZ`); None if it does not know. `ENOTTY`: it is none.
pub fn width(terminal: impl AsFd) -> io::Result<Option<u16>> {
    // SAFETY: all-zero is a valid winsize.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the call fills in one winsize.
    let asked = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &mut size) };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((size.ws_col > 0).then_some(size.ws_col))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::pty::{Winsize, openpty};

    #[test]
    fn a_terminal_has_a_width_and_a_file_has_none() {
        let size = |ws_col| Winsize { ws_row: 24, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        let wide = openpty(&size(132), None).unwrap();
        assert_eq!(width(&wide.slave).unwrap(), Some(132));
        let unknown = openpty(&size(0), None).unwrap();
        assert_eq!(width(&unknown.slave).unwrap(), None);
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(width(&file).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }
}
