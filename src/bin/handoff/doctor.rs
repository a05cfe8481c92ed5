//! `handoff doctor`: what would make an upgrade fail or hurt.

use std::time::Duration;

use console::style;
use handoff::service::config::load;
use handoff::service::doctor::facts::{of_machine, of_running, of_units};
use handoff::service::doctor::{Check, Finding, Severity, examine};
use handoff::service::paths::RuntimeDir;
use serde_json::{Value, json};

use crate::args::DoctorArgs;
use crate::control::client::ask;
use crate::control::{Request, ServiceParam};
use crate::exit::{ERROR, Failure, NOT_RUNNING};
use crate::text;

/// For the supervisor's answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn doctor(args: &DoctorArgs) -> u8 {
    let findings = match look(args) {
        Ok(findings) => findings,
        Err(failure) => return failure.report(args.json),
    };
    let worst = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok);
    if args.json {
        text::print(&json!({ "worst": worst, "findings": findings }).to_string());
    } else {
        findings.iter().for_each(show);
    }
    if worst == Severity::Error { ERROR } else { 0 }
}

fn look(args: &DoctorArgs) -> Result<Vec<Finding>, Failure> {
    let runtime = RuntimeDir::locate(args.place.runtime_dir.as_deref())?;
    if let Some(config) = &args.config {
        let config = load(config)?;
        let wanted = |name: &String| args.service.as_ref().is_none_or(|service| service == name);
        let facts = of_units(&runtime, config.units.iter().filter(|(name, _)| wanted(name)));
        let mut findings = examine(&facts);
        let advice = "correct the file";
        let place = |unit: &Option<String>| unit.clone().unwrap_or_else(|| "config".to_owned());
        findings.extend(
            config
                .faults
                .iter()
                .map(|fault| Check::new("config", &place(&fault.unit)).error(fault.to_string(), advice)),
        );
        return Ok(findings);
    }
    let mut findings = Vec::new();
    let facts = match status(args) {
        Ok(mut status) => {
            findings.extend(faulty(&mut status));
            of_running(&runtime, &status)
        }
        // The machine can be looked at all the same.
        Err(failure) if failure.code == NOT_RUNNING && args.service.is_none() && args.place.name.is_none() => {
            let advice = "start one, or give -c FILE";
            findings.push(Check::new("running", "supervisor").warning(failure.text, advice));
            of_machine(&runtime)
        }
        Err(failure) => return Err(failure),
    };
    findings.extend(examine(&facts));
    Ok(findings)
}

/// Units that are at fault, of which there is nothing else to look at.
fn faulty(status: &mut Value) -> Vec<Finding> {
    let Some(services) = status["services"].as_array_mut() else { return Vec::new() };
    let (faulty, others): (Vec<Value>, _) =
        std::mem::take(services).into_iter().partition(|service| service["state"] == "faulty");
    *services = others;
    let found = |service: &Value| {
        let word = |field: &str| service[field].as_str().unwrap_or_default();
        Check::new("config", word("name")).error(word("why"), "correct the file, and say handoff reload")
    };
    faulty.iter().map(found).collect()
}

fn status(args: &DoctorArgs) -> Result<Value, Failure> {
    let request = Request::Status(ServiceParam { service: args.service.clone() });
    ask(&args.place, args.service.as_deref(), &request, PATIENCE)
}

fn show(finding: &Finding) {
    let word = match finding.severity {
        Severity::Ok => style("ok     ").green(),
        Severity::Warning => style("warning").yellow(),
        Severity::Error => style("error  ").red(),
    };
    text::print(&format!("{word} {}: {}", finding.place, finding.text));
    if !finding.advice.is_empty() {
        text::print(&format!("        {}", finding.advice));
    }
}
