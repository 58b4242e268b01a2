//! `/containers/{id}/exec` and `/exec`: further programs in the containers of this node.

use std::sync::Arc;

use axum::extract::{FromRequest, Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::answer::{Answer, Json, Refusal};
use super::params::{Body, Params};
use super::version::ApiVersion;
use super::{App, Shared, containers};
use crate::backend::container::ContainerState;
use crate::backend::exec::{ExecFiles, ExecSession, ExecSpec, WindowSize};
use crate::error::{Error, ErrorKind};
use crate::execs::{Attached, Exec, Phase};
use crate::stream::exec as stream;
use crate::stream::keys::DetachKeys;
use crate::types::exec::{Created, ExecInspect, ExecOptions, ExecProcess, ExecStartOptions};

/// Since when streams of frames have a type of their own.
const MULTIPLEXED: ApiVersion = ApiVersion::new(1, 42);

/// The size of a terminal of which nobody has said it.
const USUAL: WindowSize = WindowSize { rows: 24, columns: 80 };

pub(super) async fn create(State(app): Shared, Path(id): Path<String>, Body(options): Body<ExecOptions>) -> Answer {
    let container = containers::find(app.backend.containers().await?, &id)?;
    if !matches!(container.state, ContainerState::Running { .. }) {
        return Err(not_running(&container.id).into());
    }
    if options.privileged {
        return Err(Error::unimplemented(
            "exec --privileged is not in this version of skep: give the service the capabilities that it needs (--cap-add)",
        )
        .into());
    }
    if options.cmd.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("No exec command specified").into());
    }
    DetachKeys::parse(&options.detach_keys)?;
    let files = match (options.tty, options.attach_stdin) {
        (true, _) => ExecFiles::Terminal(size(options.console_size)),
        (false, true) => ExecFiles::InputAndOutput,
        (false, false) => ExecFiles::Output,
    };
    let some = |text: String| (!text.is_empty()).then_some(text);
    let (user, dir) = (some(options.user), some(options.working_dir));
    let spec = ExecSpec { command: options.cmd, env: options.env, user, dir, files };
    let attached = Attached {
        stdin: options.attach_stdin,
        stdout: options.attach_stdout,
        stderr: options.attach_stderr,
        tty: options.tty,
        detach_keys: options.detach_keys,
    };
    let id = app.execs.create(container.id, spec, attached);
    Ok(Json(StatusCode::CREATED, Created { id }).into_response())
}

fn not_running(container: &str) -> Error {
    Error::new(ErrorKind::Conflict, format!("container {container} is not running"))
}

/// Rows first, as Docker writes it.
fn size(asked: Option<[u16; 2]>) -> WindowSize {
    let [rows, columns] = asked.unwrap_or_default();
    if rows == 0 || columns == 0 { USUAL } else { WindowSize { rows, columns } }
}

pub(super) async fn start(State(app): Shared, Path(id): Path<String>, mut request: Request) -> Answer {
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let wants_upgrade = request.headers().contains_key(header::UPGRADE);
    let version = request.extensions().get::<ApiVersion>().copied();
    let Body(options) = Body::<ExecStartOptions>::from_request(request, &()).await?;
    let mut exec = app.execs.begin(&id)?;
    if options.detach {
        exec.spec.files = ExecFiles::Nothing;
    } else if let (ExecFiles::Terminal(size), Some(asked)) = (&mut exec.spec.files, options.console_size) {
        *size = self::size(Some(asked));
    }
    let session = match app.backend.exec(&exec.container, exec.spec.clone()).await {
        Ok(session) => {
            app.execs.began(&id, session.pid, session.resize.clone());
            watched(&app, &id, session)
        }
        Err(error) if error.kind == ErrorKind::InvalidArgument => {
            app.execs.ended(&id, Some(stream::code_of(&error.message)));
            if options.detach {
                return Err(error.into());
            }
            // Clients look for the reason among what the program writes, and for the code afterwards.
            stream::failed(&error.message)
        }
        Err(error) => {
            app.execs.not_begun(&id);
            return Err(error.into());
        }
    };
    if options.detach {
        tokio::spawn(session.ended);
        return Ok(super::answer::empty());
    }
    Ok(attach(&app, &exec, session, upgrade.filter(|_| wants_upgrade), version))
}

/// The session, whose end is remembered.
fn watched(app: &Arc<App>, id: &str, session: ExecSession) -> ExecSession {
    let (remembering, ended) = (Remembering { app: app.clone(), id: id.to_owned(), code: None }, session.ended);
    let ended = Box::pin(async move {
        // All of it goes with the future, whenever that is.
        let mut remembering = remembering;
        remembering.code = ended.await;
        remembering.code
    });
    ExecSession { ended, ..session }
}

/// Remembers the end of a program when it goes, also when nobody has waited for it.
struct Remembering {
    app: Arc<App>,
    id: String,
    code: Option<i32>,
}

impl Drop for Remembering {
    fn drop(&mut self) {
        self.app.execs.ended(&self.id, self.code);
    }
}

/// Gives the client the program's standard files: over the whole connection when it asks for that, else the output alone.
fn attach(
    app: &Arc<App>,
    exec: &Exec,
    session: ExecSession,
    upgrade: Option<OnUpgrade>,
    version: Option<ApiVersion>,
) -> Response {
    let shape = stream::Shape::of(&exec.attached);
    let content_type = match exec.attached.tty || version.is_some_and(|version| version < MULTIPLEXED) {
        true => "application/vnd.docker.raw-stream",
        false => "application/vnd.docker.multiplexed-stream",
    };
    let Some(upgrade) = upgrade else { return stream::output(session, shape, content_type, app.closed()) };
    let closed = app.closed();
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => stream::run(TokioIo::new(connection), session, shape, closed).await,
            Err(error) => tracing::debug!("a client went away before its program began: {error}"),
        }
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static("tcp")),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

pub(super) async fn inspect(State(app): Shared, Path(id): Path<String>) -> Answer {
    let exec = app.execs.find(&id)?;
    let (running, pid, exit_code) = match exec.phase {
        Phase::Created | Phase::Starting => (false, 0, None),
        Phase::Running { pid } => (true, pid, None),
        // Docker has no word for an end that nobody saw.
        Phase::Ended { pid, code } => (false, pid.unwrap_or_default(), Some(code.unwrap_or(137))),
    };
    let mut command = exec.spec.command.into_iter();
    let inspect = ExecInspect {
        id,
        running,
        exit_code,
        process_config: ExecProcess {
            tty: exec.attached.tty,
            entrypoint: command.next().unwrap_or_default(),
            arguments: command.collect(),
            privileged: false,
            user: exec.spec.user.unwrap_or_default(),
        },
        open_stdin: exec.attached.stdin,
        open_stderr: exec.attached.stderr,
        open_stdout: exec.attached.stdout,
        can_remove: false,
        container_id: exec.container,
        detach_keys: exec.attached.detach_keys,
        pid,
    };
    Ok(Json::ok(inspect).into_response())
}

pub(super) async fn resize(State(app): Shared, Path(id): Path<String>, params: Params) -> Answer {
    let number = |name: &str| {
        let text = params.text(name);
        text.parse::<u16>()
            .map_err(|_| Refusal::from(Error::invalid(format!("{name}: {text:?} is no size of a terminal"))))
    };
    app.execs.resize(&id, WindowSize { rows: number("h")?, columns: number("w")? })?;
    Ok(super::answer::empty())
}
