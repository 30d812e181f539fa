"""The servers that `bench.serve` compares: how each is found, prepared and started. PEERS.md tells the set-up."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.platform import free_port

_START_LIMIT_S = 300.0
_STOP_LIMIT_S = 60.0
DTYPES = ("float32", "bfloat16")
NUM_STREAMS = 64
MODEL = "bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where a server of a target runs.

    peers:  the folder with one environment for each peer
    model:  the folder of the model, as transformers writes it
    home:   an empty folder for whatever the server writes
    """

    peers: Path
    model: Path
    home: Path
    dtype: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One way to serve the model.

    needs:       the file, under the peers' folder, without which it is not installed
    command:     the command line that serves
    prepare:     command lines that convert the model, with the file that the last one leaves
    environment: variables beside this process's own
    fields:      what its requests say beside the usual
    has_ids:     whether a prompt may be token ids; otherwise it is the same prompt as text
    may_sleep:   whether its processes may be stopped while another is measured
    """

    name: str
    command: Callable[[Location], list[str]]
    ready: str = "/health"
    needs: str | None = None
    prepare: Callable[[Location], tuple[list[str], Path]] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    fields: dict[str, object] = field(default_factory=dict)
    model_name: str = MODEL
    has_ids: bool = True
    may_sleep: bool = True


def _bare(location: Location) -> list[str]:
    command = [sys.executable, "-m", "bench.bare_server", "--port", str(location.port)]
    return [*command, "--model", str(location.model), "--dtype", location.dtype]


def _platform(location: Location) -> list[str]:
    command = [sys.executable, "-m", "api.cli.main", "up", "--home", str(location.home), "--port", str(location.port)]
    return [*command, "--model", f"{MODEL}={location.model}", "--device", "cpu", "--dtype", location.dtype]


def _transformers(location: Location) -> list[str]:
    command = [str(location.peers / "transformers/venv/bin/transformers"), "serve", str(location.model)]
    # Its default takes nine tenths of all memory for the cache.
    cache = ["--cb-block-size", "64", "--cb-num-blocks", "512", "--cb-max-batch-tokens", "2048"]
    where = ["--device", "cpu", "--dtype", location.dtype, "--port", str(location.port)]
    return [*command, "--continuous-batching", "--attn-implementation", "sdpa", *cache, *where]


def _llama_model(location: Location) -> Path:
    return location.peers / f"llama/models/{location.model.name}-{location.dtype}.gguf"


def _llama_convert(location: Location) -> tuple[list[str], Path]:
    made = _llama_model(location)
    script = next((location.peers / "llama").glob("llama_cpp_python-*/vendor/llama.cpp/convert_hf_to_gguf.py"), None)
    python = str(location.peers / "llama/venv/bin/python")
    command = [python, "-m", "bench.llama_convert", str(script), str(location.model), "--outfile", str(made)]
    return [*command, "--outtype", "f32" if location.dtype == "float32" else "bf16"], made


def _llama(location: Location) -> list[str]:
    command = [str(location.peers / "llama/build/bin/llama-server"), "--model", str(_llama_model(location))]
    # Its context is shared out evenly: 640 tokens for each stream.
    slots = ["--parallel", str(NUM_STREAMS), "--ctx-size", str(NUM_STREAMS * 640), "--threads", "2"]
    return [*command, "--alias", MODEL, *slots, "--port", str(location.port), "--log-disable"]


def _openvino_model(location: Location) -> Path:
    return location.peers / f"openvino/models/{location.model.name}"


def _openvino_convert(location: Location) -> tuple[list[str], Path]:
    made = _openvino_model(location)
    command = [str(location.peers / "openvino/venv/bin/optimum-cli"), "export", "openvino", "-m", str(location.model)]
    return [*command, "--task", "text-generation-with-past", "--weight-format", "fp32", str(made)], made


def _openvino(location: Location) -> list[str]:
    command = [
        str(location.peers / "openvino/venv/bin/python"),
        "-m",
        "bench.openvino_server",
        "--port",
        str(location.port),
    ]
    return [*command, "--model", str(_openvino_model(location)), "--dtype", location.dtype]


def _vllm(location: Location) -> list[str]:
    # Its documentation asks for Intel's OpenMP, which comes with it, to be loaded first.
    preload = f"LD_PRELOAD={location.peers / 'vllm/venv/lib/libiomp5.so'}"
    vllm = str(location.peers / "vllm/venv/bin/vllm")
    command = ["env", preload, vllm, "serve", str(location.model), "--served-model-name", MODEL]
    limits = ["--max-model-len", "4096", "--max-num-seqs", str(NUM_STREAMS), "--no-enable-prefix-caching"]
    return [*command, *limits, "--dtype", location.dtype, "--host", "127.0.0.1", "--port", str(location.port)]


_OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
_IGNORE_EOS: dict[str, object] = {"ignore_eos": True}

BARE = Target(name="bare", command=_bare, fields=_IGNORE_EOS)
PLATFORM = Target(
    name="platform",
    command=_platform,
    ready="/readyz",
    environment={"TOKENPOST_MAX_RUNNING": str(NUM_STREAMS)},
    fields=_IGNORE_EOS,
    may_sleep=False,  # its leases would run out
)
PEERS = (
    Target(
        name="llama.cpp",
        command=_llama,
        needs="llama/build/bin/llama-server",
        prepare=_llama_convert,
        fields=_IGNORE_EOS | {"cache_prompt": False},
    ),
    Target(
        name="openvino",
        command=_openvino,
        needs="openvino/venv/bin/optimum-cli",
        prepare=_openvino_convert,
        fields=_IGNORE_EOS,
    ),
    Target(
        name="vllm",
        command=_vllm,
        needs="vllm/venv/bin/vllm",
        # Left alone it keeps one of two cores free and computes with one thread.
        environment=_OFFLINE
        | {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "OMP_NUM_THREADS": "2"},
        fields=_IGNORE_EOS,
    ),
    Target(
        name="transformers",
        command=_transformers,
        needs="transformers/venv/bin/transformers",
        environment=_OFFLINE,
        model_name="",
        has_ids=False,
    ),
)


def is_installed(target: Target, peers: Path) -> bool:
    """Whether the target could be started."""
    return target.needs is None or (peers / target.needs).exists()


def prepare(target: Target, location: Location) -> None:
    """Convert the model for the target, once."""
    if target.prepare is None:
        return
    command, made = target.prepare(location)
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(command, check=True, capture_output=True, env=_environment(target))


class Server:
    """A server that runs, asleep or awake."""

    def __init__(self, target: Target, location: Location) -> None:
        """Start it; `wait_ready` tells when it answers."""
        self.target = target
        self.port = location.port
        self._log = location.home / f"{target.name}-{location.dtype}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                target.command(location),
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(target),
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Return when it answers; SystemExit when it ended or took too long."""
        deadline = time.monotonic() + _START_LIMIT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            if self._answers():
                return
            time.sleep(0.2)
        raise SystemExit(f"{self.target.name} does not answer: {self._log.read_text(errors='replace')[-1500:]}")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self.target.ready}", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def sleep(self) -> None:
        """Take its processor time away."""
        if self.target.may_sleep:
            self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on."""
        if self.target.may_sleep:
            self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it."""
        self.wake()
        self._process.terminate()
        try:
            self._process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            pass
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def start(target: Target, location: Location) -> Server:
    """A server that answers."""
    prepare(target, location)
    server = Server(target, location)
    try:
        server.wait_ready()
    except BaseException:
        server.stop()
        raise
    return server


def place_of(peers: Path, model: Path, home: Path, dtype: str) -> Location:
    """A place on a free port."""
    return Location(peers=peers, model=model, home=home, dtype=dtype, port=free_port())


def _environment(target: Target) -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("TOKENPOST_", "OMP_"))}
    return mine | {"PYTHONPATH": str(Path(__file__).parent.parent)} | target.environment
