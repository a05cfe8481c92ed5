//! What may move and what may not, and that a rollback leaves it as it was.

use super::compiled::hosted::Hosted;
use super::compiled::program;
use handoff::Verdict;

/// Connections and bytes of state that `transfer.c` gives.
const CONNECTIONS: u64 = 11;
const STATE_BYTES: u64 = 8 * 4 + 60 * 1024 + 1 + 7 + 8 + 4 + (64 << 20) + 3;

fn gives(name: &str) -> Hosted {
    Hosted::start(&program(name, "ffi-tests/c/transfer.c", &["-std=c11"]), "gives")
}

#[test]
fn everything_that_may_move_does_and_works_after_each_end() {
    let mut service = gives("transfer-kinds");
    for successor in ["unhealthy", "dies"] {
        let outcome = service.expect(successor, Verdict::RolledBack);
        assert_eq!((outcome.transferred_connections, outcome.transferred_state_bytes), (0, 0));
    }
    let outcome = service.expect("takes", Verdict::Committed);
    assert_eq!(outcome.transferred_connections, CONNECTIONS, "{}", service.report());
    assert_eq!(outcome.transferred_state_bytes, STATE_BYTES);
    service.expect_end("gives");
    assert_eq!(service.report().matches("everything works on").count(), 2);
    service.stop();
    service.expect_end("takes");
}
