"""The command ``triton-diffusers``: argument parsing only; each command's code is imported when it runs."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from triton_diffusers.cli import access, build_arguments, eas_json, fetch_preprocessors, gateway, reference_flags
from triton_diffusers.launcher.errors import LaunchError
from triton_diffusers.launcher.logs import LOG_LEVELS, default_log_file, logging_to
from triton_diffusers.launcher.options import LEFT_OUT, ServeOptions

_DISTRIBUTION = "triton-diffusers"
_SERVE = """\
Find a tritonserver (one on the PATH or in /opt/tritonserver first, else the one of the nvidia-pytriton wheel), start it
on the model repository with a model directory, and stay until Ctrl-C or SIGTERM. Model processes are watched by a tiny
real inference; one that has died is restarted while the server continues."""
_SERVE_END = """\
Anything after a lone -- goes to tritonserver as it is, for example:
  triton-diffusers serve --model-dir models/emoji -- --http-thread-count=16
Settings of the models are environment variables: TRITON_DIFFUSERS_*."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 2 if the command could not begin, else the command's own."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a program may have replaced it
            stream.reconfigure(errors="backslashreplace")  # file names may hold undecodable bytes
    ours, passed_on = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    chosen = make_parser().parse_args(ours)
    if chosen.command == "build":
        return _build(chosen)
    if chosen.command == "eas-json":
        return eas_json.run(chosen)
    if chosen.command == "fetch-preprocessors":
        return fetch_preprocessors.run(chosen)
    if chosen.command == "gateway":
        return gateway.run_gateway(chosen)
    if chosen.command in access.COMMANDS:
        return access.run(chosen)
    if chosen.command == "runner":
        return gateway.run_runner(chosen)
    try:
        return _demo(chosen) if chosen.command == "demo" else _serve(chosen, tuple(passed_on))
    except LaunchError as error:
        print(f"{_DISTRIBUTION}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before the command's own handler of Ctrl-C
        return 130


def _serve(chosen: argparse.Namespace, passed_on: tuple[str, ...]) -> int:
    from triton_diffusers.launcher.launcher import serve

    level = "verbose" if chosen.verbose else chosen.log_level
    file = default_log_file(chosen.http_port) if chosen.log_file is None else chosen.log_file
    with logging_to(Path(file) if file else None, level) as log_file:
        deployment = reference_flags.read(chosen, os.environ)
        os.environ.update(deployment.settings)  # for this process and all that it starts
        options = ServeOptions(
            model_repository=chosen.model_repository,
            model_dir=deployment.model_dir or _default_model_dir(),
            func_name=chosen.func_name,
            store=deployment.store,
            translator_dir=_checkout() / "models" / "translator",
            host=chosen.host,
            http_port=chosen.http_port,
            grpc_port=chosen.grpc_port,
            metrics_port=chosen.metrics_port,
            gateway_port=None if chosen.no_gateway else chosen.gateway_port,
            tritonserver=chosen.tritonserver,
            watch=not chosen.no_watch,
            hang_timeout=chosen.hang_timeout,
            exit_timeout=chosen.exit_timeout,
            log_file=log_file,
            discard_artifacts=chosen.remove_opt,
            extra_arguments=passed_on,
        )
        return serve(options)


def _build(chosen: argparse.Namespace) -> int:
    try:
        from triton_diffusers.cli.build import run
    except ModuleNotFoundError as error:
        print(
            f"{_DISTRIBUTION}: build needs the package {error.name!r}; "
            "install it with: pip install 'triton-diffusers[engine]'",
            file=sys.stderr,
        )
        return 2
    return run(chosen)


def _demo(chosen: argparse.Namespace) -> int:
    from triton_diffusers.launcher.demo import demo

    print(
        demo(
            model_dir=chosen.model_dir or _default_model_dir(),
            model_repository=chosen.model_repository,
            prompt=chosen.prompt,
            output=chosen.output,
        )
    )
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; it stores the command's name as ``command``."""
    parser = argparse.ArgumentParser(prog=_DISTRIBUTION, description="Stable Diffusion on Triton Inference Server.")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_demo(commands)
    gateway.add_gateway_arguments(
        commands.add_parser(
            "gateway",
            help="serve HTTP to clients, in front of runners",
            description=gateway.GATEWAY_DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    gateway.add_runner_arguments(
        commands.add_parser(
            "runner",
            help="draw the gateway's jobs on the Triton server beside it",
            description=gateway.RUNNER_DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    access.add_arguments(commands)
    build = commands.add_parser(
        "build",
        help="compile a model for this machine",
        description=build_arguments.DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    build_arguments.add_arguments(build)
    eas_json.add_arguments(
        commands.add_parser(
            "eas-json",
            help="print the JSON of a service on PAI-EAS",
            description=eas_json.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    fetch_preprocessors.add_arguments(
        commands.add_parser(
            "fetch-preprocessors",
            help="download the weights of ControlNet preprocessors",
            description=fetch_preprocessors.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    return parser


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser(
        "serve",
        help="run Triton here",
        description=_SERVE,
        epilog=_SERVE_END,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = serve.add_argument_group("models")
    _add_models(where)
    where.add_argument(
        "--func-name",
        "--func_name",
        choices=tuple(LEFT_OUT),
        default="all",
        help="the generating models to load: sd_base, sd_controlnet or both, which share one engine "
        "(default: %(default)s)",
    )
    where.add_argument(
        "--store",
        metavar="PLACE",
        help="where results are stored: a directory, oss://bucket/prefix, s3://bucket/prefix, or '' for nowhere "
        "(default: $TRITON_DIFFUSERS_STORE, else results)",
    )
    network = serve.add_argument_group("network")
    network.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default: %(default)s, this machine only). Other machines can call it with "
        "--host 0.0.0.0; everybody who reaches the ports can then submit and cancel jobs, so put it behind a proxy",
    )
    for name, port, what in (
        ("http", 8000, "HTTP"),
        ("grpc", 8001, "gRPC"),
        ("metrics", 8002, "Prometheus metrics"),
    ):
        network.add_argument(
            f"--{name}-port",
            type=int,
            default=port,
            metavar="PORT",
            help=f"port for {what} (default: %(default)s; 0 takes a free one)",
        )
    network.add_argument(
        "--gateway-port",
        type=int,
        default=8080,
        metavar="PORT",
        help="port of the gateway: jobs over HTTP (default: %(default)s; 0 takes a free one)",
    )
    network.add_argument("--no-gateway", action="store_true", help="start Triton only, without gateway and runner")
    how = serve.add_argument_group("operation")
    how.add_argument(
        "--tritonserver",
        type=Path,
        metavar="PROGRAM",
        help="use this tritonserver and no other (it needs its backends directory beside its bin directory)",
    )
    how.add_argument("--no-watch", action="store_true", help="do not restart dead model processes")
    how.add_argument(
        "--hang-timeout",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="also restart an engine process or a model that neither answers nor makes progress for this time "
        "(default: %(default)g; 0: never)",
    )
    how.add_argument(
        "--exit-timeout",
        type=_whole_seconds,
        default=15,
        metavar="SECONDS",
        help="time for requests in flight to finish after a stop (default: %(default)s); a second Ctrl-C stops at once",
    )
    how.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        default="info",
        help="log level of the terminal (default: %(default)s); verbose shows the logs of Triton and the models, too",
    )
    how.add_argument("--verbose", action="store_true", help="the same as --log-level verbose")
    how.add_argument(
        "--log-file",
        metavar="FILE",
        help="file of the full log, whatever the terminal's level; '' for none (default: serve.log in "
        "$TRITON_DIFFUSERS_RUNTIME_DIR, else serve-PORT.log in ~/.local/state/triton-diffusers)",
    )
    reference_flags.add_arguments(serve)


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="start a server, generate one image, stop the server",
        description="Start a server on free ports, generate one image, stop the server, and print the image's path.",
    )
    _add_models(demo)
    demo.add_argument(
        "--prompt",
        default="a red apple on a blue background",
        metavar="TEXT",
        help="the prompt (default: %(default)s)",
    )
    demo.add_argument(
        "--output",
        type=Path,
        default=Path("result") / "demo.png",
        metavar="FILE",
        help="where to write the image, as PNG (default: %(default)s)",
    )


def _add_models(options: argparse._ActionsContainer) -> None:
    options.add_argument(
        "--model-dir",
        "--model_dir",
        metavar="DIR",
        help="model directory, with base_model/ in it, or a diffusers folder, or one checkpoint file; "
        "or hf://OWNER/NAME[@REVISION], "
        "modelscope://OWNER/NAME[@REVISION], oss://BUCKET/PREFIX, s3://BUCKET/PREFIX "
        "(default: $TRITON_DIFFUSERS_MODEL_DIR, else models/emoji)",
    )
    options.add_argument(
        "--model-repository",
        type=Path,
        default=_checkout() / "model_repository",
        metavar="DIR",
        help="Triton's model repository (default: the checkout's model_repository/)",
    )


def _default_model_dir() -> str:
    return os.environ.get("TRITON_DIFFUSERS_MODEL_DIR") or str(_checkout() / "models" / "emoji")


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (seconds := float(text)) < float("inf"):
            return seconds
    raise argparse.ArgumentTypeError(f"{text} is not a number of seconds, 0 or more")


def _whole_seconds(text: str) -> int:
    with contextlib.suppress(ValueError):
        if (seconds := int(text)) >= 0:
            return seconds
    raise argparse.ArgumentTypeError(f"{text} is not a whole number of seconds, 0 or more")


def _checkout() -> Path:
    """Return the checkout that contains this package; the current directory if it is installed elsewhere."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "model_repository").is_dir() else Path.cwd()


def _version() -> str:
    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "not installed"
