use skep_model::{Data, Placement, Platform, Resources, ServiceMode, TaskSpec, VolumeDriver};

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn facts() -> Facts {
    Facts {
        service: ServiceFacts {
            id: "s1".into(),
            name: "web".into(),
            labels: labels(&[("zone", "a"), ("a.b", "dots")]),
        },
        node: NodeFacts {
            id: "n1".into(),
            hostname: "host1".into(),
            platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
        },
        task: TaskFacts { id: "t1".into(), name: "web.3.t1".into(), slot: "3".into() },
    }
}

fn hostname(text: &str) -> Result<String, TemplateError> {
    let container = ContainerSpec { hostname: Some(text.to_owned()), ..ContainerSpec::default() };
    Ok(expand(&container, &facts())?.hostname.unwrap())
}

#[test]
fn what_can_be_asked() {
    for (text, expected) in [
        ("plain", "plain"),
        ("{{.Service.Name}}-{{.Task.Slot}}", "web-3"),
        ("{{.Service.ID}} {{.Node.ID}} {{.Task.ID}}", "s1 n1 t1"),
        ("{{.Node.Hostname}} {{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}", "host1 linux/x86_64"),
        ("{{.Task.Name}}", "web.3.t1"),
        ("{{.Service.Labels.zone}}", "a"),
        ("{{index .Service.Labels \"a.b\"}}|{{index .Service.Labels \"none\"}}|", "dots||"),
        ("{{join \"-\" .Service.Name .Task.Slot}}", "web-3"),
        ("{{if eq .Task.Slot \"3\"}}three{{else}}other{{end}}", "three"),
        ("{{range $k, $v := .Service.Labels}}{{$k}}={{$v}};{{end}}", "a.b=dots;zone=a;"),
    ] {
        assert_eq!(hostname(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_cannot_be_asked_is_said() {
    for (text, reason) in [
        ("{{.Service.Nme}}", "Nme"),
        ("{{.Volume}}", "Volume"),
        ("{{.Service.Name", "unclosed"),
        ("{{nosuch .Service}}", "nosuch"),
        ("{{secret \"x\"}}", "secret"),
        ("{{.Service.Labels.none}}", "none"),
        ("{{.Service.Labels \"zone\"}}", "Labels"),
    ] {
        let error = hostname(text).unwrap_err();
        assert_eq!(error.field, "Hostname");
        assert!(error.to_string().contains(reason) && error.to_string().contains("the template"), "{error}");
    }
}

#[test]
fn variables_and_mounts_are_filled_in_and_the_rest_is_not() {
    let volume = MountKind::Volume {
        source: Some("data-{{.Task.Slot}}".into()),
        options: VolumeOptions {
            no_copy: false,
            labels: labels(&[("of", "{{.Service.Name}}")]),
            driver: Some(VolumeDriver { name: String::new(), options: labels(&[("device", ":/{{.Node.Hostname}}")]) }),
        },
    };
    let bind = MountKind::Bind { source: "/srv/{{.Service.Name}}".into(), propagation: None };
    let mount = |kind, target: &str| Mount { kind, target: target.into(), read_only: false };
    let container = ContainerSpec {
        env: vec!["WHO={{.Task.Name}}".into(), "PLAIN=1".into()],
        args: vec!["{{.Task.Name}}".into()],
        mounts: vec![mount(volume, "/v"), mount(bind, "/b{{.Task.Slot}}")],
        ..ContainerSpec::default()
    };
    let filled = expand(&container, &facts()).unwrap();
    assert_eq!(filled.env, ["WHO=web.3.t1", "PLAIN=1"]);
    assert_eq!(filled.args, ["{{.Task.Name}}"]);
    let MountKind::Volume { source, options } = &filled.mounts[0].kind else { panic!("a volume") };
    assert_eq!((source.as_deref(), &options.labels["of"][..]), (Some("data-3"), "web"));
    assert_eq!(options.driver_options()["device"], ":/host1");
    let bound = MountKind::Bind { source: "/srv/web".into(), propagation: None };
    assert_eq!((&filled.mounts[1].kind, &filled.mounts[1].target[..]), (&bound, "/b3"));
}

#[test]
fn contents_ask_for_more() {
    let data = |text: &str| Data(text.as_bytes().to_vec());
    let container = ContainerSpec { env: vec!["A=1".into(), "BARE".into()], ..ContainerSpec::default() };
    let (password, other) = (data("hush"), data("other"));
    let given = Given::new(
        &container,
        [("db.password", "password-v2", &password), ("password-v2x", "db.password", &other)],
        [("/etc/site", "site", &other)],
    );
    let fill = |text: &str| fill("conf", &data(text), &facts(), &given).map(|data| String::from_utf8(data.0).unwrap());
    let text = "{{env \"A\"}}{{env \"B\"}} {{secret \"db.password\"}} {{secret \"password-v2\"}} {{config \"site\"}} {{.Service.Name}}";
    assert_eq!(fill(text).unwrap(), "1 hush hush other web", "the name of a file goes first");
    let error = fill("{{secret \"none\"}}").unwrap_err().to_string();
    assert!(error.contains("no secret \"none\"") && !error.contains("hush"), "{error}");
    check_payload(&data(text)).unwrap();
    assert!(check_payload(&data("{{secret \"x\"")).is_err());
    assert!(check_payload(&Data(vec![0xff])).unwrap_err().to_string().contains("UTF-8"));
}

#[test]
fn a_service_is_tried_out_before_it_is_taken() {
    let hostname = Some("{{.Service.Name}}-{{.Service.Labels.zone}}-{{.Task.Slot}}".into());
    let mut spec = ServiceSpec {
        name: "web".parse().unwrap(),
        labels: labels(&[("zone", "a")]),
        task: TaskSpec {
            container: ContainerSpec { hostname, ..ContainerSpec::default() },
            resources: Resources::default(),
            restart: None,
            placement: Placement::default(),
            networks: Vec::new(),
            force_update: 0,
            registry_auth: None,
        },
        mode: ServiceMode::Global,
        update: None,
        rollback: None,
        endpoint: None,
    };
    assert_eq!(check(&spec).unwrap().hostname.as_deref(), Some("web-a-1"));
    spec.labels.clear();
    assert!(check(&spec).is_err());
}
