use clap::{Parser, Subcommand};

use super::*;
use crate::commands::service::Command;

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: Outer,
}

#[derive(Subcommand)]
enum Outer {
    #[command(flatten)]
    Service(Command),
}

fn parse(words: &[&str]) -> Command {
    let Outer::Service(command) = Line::try_parse_from(std::iter::once(&"skep").chain(words)).unwrap().command;
    command
}

fn create(words: &[&str]) -> anyhow::Result<Value> {
    match parse(&[&["create"], words].concat()) {
        Command::Create(flags) => created(&flags),
        other => panic!("{other:?}"),
    }
}

fn changed(mut spec: Value, words: &[&str]) -> Value {
    match parse(&[&["update"], words, &["web"]].concat()) {
        Command::Update(flags) => update(&mut spec, &flags).unwrap(),
        other => panic!("{other:?}"),
    }
    spec
}

#[test]
fn what_docker_sends_for_the_same_flags() {
    let want = json!({"Name":"pub","Labels":{},"TaskTemplate":{"ContainerSpec":{"Image":"web:1","Init":false,"DNSConfig":{}},
        "Resources":{"Limits":{},"Reservations":{}},"Placement":{},"ForceUpdate":0},"Mode":{"Replicated":{"Replicas":2}},
        "EndpointSpec":{"Mode":"vip","Ports":[{"Protocol":"tcp","TargetPort":80,"PublishedPort":8080,"PublishMode":"ingress"}]}});
    assert_eq!(
        create(&["--name", "pub", "--publish", "published=8080,target=80", "--replicas", "2", "web:1"]).unwrap(),
        want
    );
}

#[test]
fn generic_resources_are_asked_for_by_their_kind() {
    let spec = create(&["--generic-resource", "gpu=2", "--generic-resource", "ssd=1", "web:1"]).unwrap();
    let asked = |spec: &Value| spec["TaskTemplate"]["Resources"]["Reservations"]["GenericResources"].clone();
    let one = |kind: &str, value: u64| json!({ "DiscreteResourceSpec": { "Kind": kind, "Value": value } });
    assert_eq!(asked(&spec), json!([one("gpu", 2), one("ssd", 1)]));
    let spec = changed(spec, &["--generic-resource-add", "gpu=4", "--generic-resource-rm", "ssd"]);
    assert_eq!(asked(&spec), json!([one("gpu", 4)]));
    assert_eq!(asked(&changed(spec, &["--generic-resource-rm", "gpu"])), json!(null));
}

#[test]
fn a_command_keeps_its_own_flags() {
    let spec = create(&["web:1", "sh", "-c", "a a", "--name", "-p", "a"]).unwrap();
    assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Args"], json!(["sh", "-c", "a a", "--name", "-p", "a"]));
    let repeated = create(&["web:1", "echo", "a", "a"]).unwrap();
    assert_eq!(repeated["TaskTemplate"]["ContainerSpec"]["Args"], json!(["echo", "a", "a"]));
}

#[test]
fn an_update_changes_only_what_it_names() {
    let spec = json!({"Name":"web","Unknown":{"x":1},"Labels":{"a":"1"},"TaskTemplate":{"ForceUpdate":3,"ContainerSpec":{
        "Image":"web:1","Env":["A=1","B=2"],"Secrets":[{"SecretID":"s"}]}},"Mode":{"Replicated":{"Replicas":1}},"EndpointSpec":{"Mode":"vip"}});
    let got = changed(
        spec,
        &["--force", "--image", "web:2", "--env-add", "B=3", "--env-rm", "A", "--label-add", "b=2", "--replicas", "4"],
    );
    let want = json!({"Name":"web","Unknown":{"x":1},"Labels":{"a":"1","b":"2"},"TaskTemplate":{"ForceUpdate":4,"Placement":{},"ContainerSpec":{
        "Image":"web:2","Env":["B=3"],"Secrets":[{"SecretID":"s"}],"DNSConfig":{}}},"Mode":{"Replicated":{"Replicas":4}},"EndpointSpec":{"Mode":"vip"}});
    assert_eq!(got, want);
}

#[test]
fn ports_are_removed_by_target_and_added_by_door() {
    let spec = json!({"EndpointSpec":{"Ports":[
        {"Protocol":"tcp","TargetPort":80,"PublishedPort":8080,"PublishMode":"ingress"},
        {"Protocol":"udp","TargetPort":53,"PublishedPort":53,"PublishMode":"ingress"}]}});
    let got = changed(spec, &["--publish-rm", "80", "--publish-add", "53:5353/udp", "--publish-add", "81"]);
    assert_eq!(
        got["EndpointSpec"]["Ports"],
        json!([
        {"Protocol":"udp","TargetPort":5353,"PublishedPort":53,"PublishMode":"ingress"},
        {"Protocol":"tcp","TargetPort":81,"PublishMode":"ingress"}])
    );
}

#[test]
fn one_flag_of_a_group_brings_the_defaults_of_the_rest() {
    let spec = create(&["--update-delay", "3s", "--restart-condition", "on-failure", "web:1"]).unwrap();
    assert_eq!(spec["UpdateConfig"]["Delay"], json!(3_000_000_000_i64));
    assert_eq!(spec["UpdateConfig"]["FailureAction"], json!("pause"));
    assert_eq!(
        spec["TaskTemplate"]["RestartPolicy"],
        json!({"Condition":"on-failure","Delay":5_000_000_000_i64,"MaxAttempts":0})
    );
    assert!(spec["RollbackConfig"].is_null());
}

#[test]
fn replicas_of_a_global_service_are_refused() {
    assert!(create(&["--mode", "global", "--replicas", "2", "web:1"]).is_err());
}

#[test]
fn capabilities_move_between_the_lists() {
    let spec = changed(json!({}), &["--cap-add", "net_admin"]);
    assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["CapabilityAdd"], json!(["CAP_NET_ADMIN"]));
    let spec = changed(spec, &["--cap-drop", "NET_ADMIN"]);
    assert!(spec["TaskTemplate"]["ContainerSpec"]["CapabilityAdd"].is_null());
}

/// A loop in a loop over ten thousand ports took minutes.
#[test]
fn a_range_of_ten_thousand_ports_is_added_and_removed_at_once() {
    let began = std::time::Instant::now();
    let spec = create(&["-p", "20000-29999:80", "-p", "127.0.0.1:53:53/udp", "web:1"]).unwrap();
    let ports = spec["EndpointSpec"]["Ports"].as_array().unwrap();
    assert_eq!((ports.len(), &ports[10_000]["HostIP"]), (10_001, &json!("127.0.0.1")));
    let spec = changed(spec, &["--publish-add", "20000-29999:81"]);
    assert_eq!(spec["EndpointSpec"]["Ports"].as_array().unwrap().len(), 10_001);
    let spec = changed(spec, &["--publish-rm", "81"]);
    assert_eq!(spec["EndpointSpec"]["Ports"].as_array().unwrap().len(), 1);
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn networks_are_added_changed_and_removed() {
    let mut spec = json!({"TaskTemplate":{"Networks":[{"Target":"a"},{"Target":"b","Aliases":["x"]}]}});
    networks(&mut spec, vec![json!({"Target":"c"}), json!({"Target":"a","Aliases":["y"]})], &["b".to_owned()]);
    assert_eq!(spec["TaskTemplate"]["Networks"], json!([{"Target":"a","Aliases":["y"]},{"Target":"c"}]));
    networks(&mut spec, Vec::new(), &["a".to_owned(), "c".to_owned()]);
    assert_eq!(spec, json!({"TaskTemplate":{}}));
    let mut old = json!({"Networks":[{"Target":"a"}],"TaskTemplate":{}});
    networks(&mut old, vec![json!({"Target":"b"})], &[]);
    assert_eq!(old, json!({"TaskTemplate":{"Networks":[{"Target":"a"},{"Target":"b"}]}}));
}
