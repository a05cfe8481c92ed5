use super::*;
use crate::ffi::*;
use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null, null_mut};

static LINES: Mutex<Vec<(i32, String)>> = Mutex::new(Vec::new());

unsafe extern "C-unwind" fn collect(_: *mut c_void, level: i32, _: *const c_char, text: *const c_char) {
    // SAFETY: the library passes a string.
    let text = unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned();
    LINES.lock().unwrap().push((level, text));
}

fn errmsg(h: *const Handoff) -> String {
    let mut buf = [0; 200];
    // SAFETY: a handle and a buffer of that size, whose end is NUL.
    unsafe { CStr::from_ptr(handoff_errmsg(h, buf.as_mut_ptr(), buf.len())) }.to_str().unwrap().to_owned()
}

#[test]
fn a_panic_goes_to_the_log_and_poisons_the_handle() {
    let mut h = null_mut();
    // SAFETY: as the header has it; nobody else uses these.
    unsafe {
        let c = handoff_config_new();
        assert_eq!(handoff_set_log(c, Some(collect), null_mut(), None), 0);
        assert_eq!(handoff_detect_role(c, &raw mut h, null_mut(), 0), 1);
        handoff_config_free(c);
        assert_eq!(call(h, Class::Owner, "handoff_test", |_| panic!("of {}", "the test")), -7);
        assert_eq!(handoff_phase(h), -7);
        assert_eq!(handoff_serve(h), -7);
        assert_eq!(handoff_listener_name(h, 0), null());
        assert!(errmsg(h).starts_with("handoff_test: the library panicked"), "{}", errmsg(h));
        handoff_free(h);
    }
    let lines = LINES.lock().unwrap();
    assert!(lines.iter().any(|(level, text)| *level == 1 && text.contains("of the test")), "{lines:?}");
}

#[test]
fn a_panic_of_others_goes_where_it_went() {
    let thread = std::thread::spawn(|| panic!("not of the library"));
    assert!(thread.join().is_err());
    assert!(LINES.lock().unwrap().iter().all(|(_, text)| !text.contains("not of the library")));
}

#[test]
fn every_error_has_its_number_in_the_header_and_its_text() {
    let all = [
        Error::Invalid(String::new()),
        Error::System { what: String::new(), source: std::io::Error::from_raw_os_error(1) },
        Error::Busy(""),
        Error::State(String::new()),
        Error::Forked,
        Error::Panicked,
        Error::Aborted(String::new()),
        Error::Stale,
        Error::Locked(String::new()),
        Error::Sealed,
        Error::NotGiven,
        Error::Refused(String::new()),
        Error::Version(String::new()),
        Error::Protocol(String::new()),
        Error::TooBig(String::new()),
        Error::Duplicate(String::new()),
        Error::Limit(String::new()),
        Error::Stopped,
        Error::Resume(String::new()),
        Error::NoName(String::new()),
    ];
    let codes: Vec<i32> = all.iter().map(Error::code).collect();
    let expected: Vec<i32> = (1..=21).filter(|code| *code != 2).map(|code: i32| -code).collect(); // 2: no memory
    assert_eq!(codes, expected);
    assert_eq!(handoff_errors::HANDOFF_ENONAME as i32, -21);
    for error in all {
        // SAFETY: a static text.
        let text = unsafe { CStr::from_ptr(handoff_strerror(error.code())) };
        assert_ne!(text, c"an unknown code");
    }
}
