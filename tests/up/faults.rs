//! Units that are at fault, and the rest.

use crate::scene::{Scene, daemon};

#[test]
fn of_thirty_units_with_cycles_and_faults_the_rest_runs() {
    let mut units = String::new();
    let quick = |name: &str, keys: &str| {
        format!("[unit.{name}]\nexec = ['sleep', '1000']\nmode = 'none'\nready = 'delay=1ms'\n{keys}\n")
    };
    // A chain of ten, a circle of five and one that needs it, a unit that needs nobody there, one without a program, …
    for at in 0..10 {
        let keys = if at == 0 { String::new() } else { format!("requires = ['chain{}']", at - 1) };
        units += &quick(&format!("chain{at}"), &keys);
    }
    for at in 0..5 {
        units += &quick(&format!("circle{at}"), &format!("requires = ['circle{}']", (at + 1) % 5));
    }
    units += &quick("outside", "requires = ['circle0']");
    units += &quick("wanting", "wants = ['chain9']");
    units += &quick("lost", "requires = ['nobody']");
    units += "[unit.empty]\n";
    for at in 0..11 {
        units += &quick(&format!("free{at}"), "");
    }
    let scene = Scene::up(&units);
    let good: Vec<String> = (0..10)
        .map(|at| format!("chain{at}"))
        .chain((0..11).map(|at| format!("free{at}")))
        .chain(["wanting".into()])
        .collect();
    for name in &good {
        scene.wait_for(name, "running");
    }
    let (faulty, others): (Vec<_>, Vec<_>) = scene.status().into_iter().partition(|unit| unit["state"] == "faulty");
    assert_eq!((faulty.len(), others.len()), (8, good.len()));
    for words in ["circle0 -> circle1", "there is no unit or target 'nobody'", "outside", "empty"] {
        assert!(scene.stderr().contains(words), "{words}: {}", scene.stderr());
    }
}

#[test]
fn without_any_unit_it_does_not_run() {
    let mut scene = Scene::place("");
    scene.launch();
    assert_eq!(scene.end(), 1);
    assert!(scene.stderr().contains("there is no unit"), "{}", scene.stderr());
    std::fs::remove_file(scene.config()).unwrap();
    scene.launch();
    assert_eq!(scene.end(), 1);
    scene.write(&daemon("a", ""));
    scene.launch();
    scene.wait_for("a", "running");
}
