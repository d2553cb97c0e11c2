"""The command line. It only wires: heavy imports wait inside the commands, so ``--help`` is instant."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from freqgan import __version__
from freqgan.errors import InputError
from freqgan.runtime.imports import uncollected
from freqgan.sizes import Size, parse_size
from launch.console.exits import run_app

if TYPE_CHECKING:
    from cluster.run.settings import RunSettings

# Listing them would cost --help an import of all settings.
PRESETS = "cifar10, cifar10-flow, cifar10-mixed, clips, clothing, demo, fusion, photos-256, photos-64, scans, smoke"
SYSTEMS = "bands,literal,joint-hf,single,fusion,flow,mixed,single-flow"
COMPARED = "bands,literal,joint-hf,single"

app = typer.Typer(
    name="freqgan",
    help="Image generators trained one frequency band at a time.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
shards = typer.Typer(help="Training images as WebDataset tar shards.", no_args_is_help=True)
app.add_typer(shards, name="shards")
models = typer.Typer(help="Versions of a model that is retrained, and which of them is in use.", no_args_is_help=True)
app.add_typer(models, name="models")
storage = typer.Typer(help="Where runs and shards are kept.", no_args_is_help=True)
app.add_typer(storage, name="storage")

Settings = Annotated[str, typer.Argument(metavar="SETTINGS", help=f"YAML file, or a preset: {PRESETS}")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="key=value", help="settings that replace those of SETTINGS")
]
Address = Annotated[
    str | None,
    typer.Option(metavar="ADDR", help='address of a Ray cluster, for executor=ray; "auto" for the one this runs in'),
]
Shards = Annotated[str, typer.Argument(metavar="URL", help="folder, .tar, glob or s3:// URL of shards")]


def _check_registry(url: str) -> str:
    from cluster.run.presence import check_registry

    check_registry(url)
    return url


Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="<models>/<name>, a path or s3:// URL", callback=_check_registry)
]


def _check_run(run: str) -> str:
    from cluster.run.presence import check_model

    check_model(run)
    return run


Run = Annotated[str, typer.Argument(metavar="RUN", help="run folder, a path or s3:// URL", callback=_check_run)]
Learned = Annotated[
    bool,
    typer.Option(
        "--learned/--no-learned",
        help="teach two small networks what the real images show, once for these, and measure by their features too",
    ),
]


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


AS_TRAINED = "as trained"
Evaluations = Annotated[
    int | None,
    typer.Option(
        min=1, max=1000, show_default=AS_TRAINED, help="passes through a flow expert's network for one sample"
    ),
]
AtImages = Annotated[
    int | None,
    typer.Option(
        "--at-images",
        min=1,
        show_default="newest",
        help="use the newest checkpoint of at most so many images, of every part that trained at its own pace",
    ),
]
FlowSolver = Annotated[
    str | None, typer.Option("--solver", metavar="heun|euler", show_default=AS_TRAINED, help="of flow experts")
]
ConditionNoise = Annotated[
    float | None,
    typer.Option(
        min=0,
        callback=_finite,
        show_default=AS_TRAINED,
        help="strength of the noise on the bands that a flow expert sees",
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        callback=_finite, show_default=AS_TRAINED, help="how far to lead away from the guides of flow experts"
    ),
]
Category = Annotated[
    str | None,
    typer.Option("--class", "--label", metavar="CLASS", help="class of all images, by its name or its number"),
]
LabelGuidance = Annotated[
    float | None,
    typer.Option(
        min=0,
        callback=_finite,
        show_default=AS_TRAINED,
        help="how far to lead away from what is made without the class, or the whole target",
    ),
]


def _positive(value: float | None) -> float | None:
    if value is not None and value <= 0:
        raise typer.BadParameter(f"{value} is not above 0")
    return _finite(value)


Shift = Annotated[
    float | None,
    typer.Option(
        callback=_positive,
        show_default=AS_TRAINED,
        help="where the steps of flow experts lie: above 1 closer together near the noise, below 1 near the data",
    ),
]


def main(arguments: list[str] | None = None) -> None:
    """The console entry point: runs a command and always leaves by SystemExit, see :func:`run_app`."""
    run_app(app, sys.argv[1:] if arguments is None else arguments)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"freqgan {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Image generators trained one frequency band at a time."""


@shards.command("pack")
def pack_command(
    source: Annotated[str, typer.Argument(metavar="SRC", help="folder or .zip of images or videos")],
    destination: Annotated[str, typer.Argument(metavar="DST", help="folder or s3:// URL for the shards")],
    shard_size_mib: Annotated[int, typer.Option(min=1, help="largest size of a shard, MiB")] = 64,
    shard_samples: Annotated[int, typer.Option(min=1, help="most images in a shard")] = 10_000,
    table: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="CSV, JSON lines or Parquet that describes the images",
            show_default="metadata.csv, .jsonl or .parquet in SRC, if there is one",
        ),
    ] = None,
    image_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="its column with the path of the image in SRC",
            show_default="file_name, file, path, image or filename",
        ),
    ] = None,
    class_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="its column with the class", show_default="folders are classes")
    ] = None,
    caption_column: Annotated[str | None, typer.Option(metavar="NAME", help="its column with a text, for .txt")] = None,
    vector_column: Annotated[
        str | None, typer.Option(metavar="NAME", help='its column with numbers, for .npy: a list, or "1 2 3"')
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="pack clips of so many frames, of videos, animations, arrays, folders of frames",
            show_default="still images",
        ),
    ] = None,
    stride: Annotated[int, typer.Option(min=1, help="of so many frames each first goes into a clip")] = 1,
    fps: Annotated[
        float | None,
        typer.Option(help="frames a second of clips", show_default="those of the video"),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=1, metavar="PIXELS", help="shorter side that frames are reduced to", show_default="as it is"),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="store clips as JPEG of this quality", show_default="PNG, without loss"),
    ] = None,
    array: Annotated[
        str | None, typer.Option(metavar="NAME", help="which array of an .npz of several", show_default="the only one")
    ] = None,
    volumes: Annotated[
        bool,
        typer.Option(
            "--volumes",
            help="a series of DICOM or a volume of NIfTI is one sample with all of its slices",
            show_default="every slice is one",
        ),
    ] = False,
    axis: Annotated[
        str, typer.Option(metavar="AXIS", help="that of NIfTI's slices: axial, coronal or sagittal")
    ] = "axial",
    time: Annotated[bool, typer.Option("--time", help="the time of 4-D NIfTI becomes frames")] = False,
    values: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="of scans: shared (integers of one scale), own (of a scale for each scan), or float32",
        ),
    ] = "shared",
    allow_burned_in: Annotated[
        bool, typer.Option("--allow-burned-in", help="pack DICOM that says that text is burnt into its pixels")
    ] = False,
) -> None:
    """Packs a folder or zip of images into tar shards; folders of the first level are classes.

    Files with the name of an image but for .txt, .npy or .json are packed beside it. So are the columns of a table: its
    text as .txt, its numbers as .npy, and all other columns as .json.

    Images are copied as they are. Arrays (.npy, .npz) and TIFFs are converted. With --frames everything becomes clips:
    mp4 and other videos, GIF, APNG, animated WebP, arrays of frames, and folders of numbered images.

    Of scans (DICOM, NIfTI) every slice is an image; with --volumes a volume is one sample, with --frames so many slices
    are. Nothing that says whose they are is packed.
    """
    from cluster.data.image_tables import TableColumns
    from cluster.formats.scan import ScanOptions
    from cluster.formats.source_format import PieceOptions
    from launch.commands.pack import pack_with_progress

    columns = TableColumns(image_column, class_column, caption_column, vector_column)
    scans = ScanOptions(volumes, axis, time, values, allow_burned_in)
    options = PieceOptions(frames, stride, fps, size, quality, array, scans)
    print(pack_with_progress(source, destination, shard_size_mib, shard_samples, table, columns, options))


@shards.command("index")
def index_command(data: Shards) -> None:
    """Reads shards that were made elsewhere and writes index.json beside them: sizes, sha256, crc32 of every image.

    With it any damage is noticed, and a training starts without walking the shards.
    """
    from launch.commands.shards import index_with_progress

    print(index_with_progress(data))


@shards.command("verify")
def verify_command(data: Shards) -> None:
    """Reads every shard and compares it with the index beside it; exits 3 when anything is damaged.

    Shards that no index knows are walked, and all of their images decoded.
    """
    from launch.commands.shards import verify_with_progress

    print(verify_with_progress(data))


@shards.command("info")
def info_command(
    data: Shards,
    grid: Annotated[str | None, typer.Option(metavar="FILE", help="PNG of 64 random images, local or s3://")] = None,
) -> None:
    """Prints how many images shards hold, of which kinds and classes, and whether damage would be noticed."""
    from launch.commands.shards import show_info

    show_info(data, grid)


@storage.command("check")
def storage_check_command(
    url: Annotated[str, typer.Argument(metavar="URL", help="folder or s3:// URL in which runs are to be kept")],
) -> None:
    """Tries out what a store can do, and prints it as a table; exits 2 where it cannot hold a run."""
    from launch.commands.storage import show_storage_check

    show_storage_check(url)


@app.command("train")
def train_command(
    settings: Settings,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print all settings and the plan of experts, and stop.")
    ] = False,
    address: Address = None,
) -> None:
    """Trains; run the same command again to resume. Exits 75 when a signal stopped it at a checkpoint."""
    from launch.settings.load import load_settings

    _train(load_settings(settings, overrides or []), address, dry_run=dry_run)


def _train(settings: RunSettings, address: str | None, *, dry_run: bool) -> None:
    """Print ``settings`` and their plan, or train them and leave with the exit code."""
    if dry_run:
        from launch.console.plan_table import print_plan

        print_plan(settings)
        return
    if address is not None and settings.executor == "inline":
        raise InputError(
            f"--address {address}: executor=inline trains in this process and joins no cluster; add executor=ray, or "
            "leave --address out"
        )
    from cluster.run.presence import check_data
    from cluster.storage.folder import open_folder

    open_folder(settings.run)
    check_data(settings.data)
    with uncollected():
        from launch.commands.train import run_training
    raise typer.Exit(run_training(settings, address))


@app.command("distil")
def distil_command(
    run: Run,
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SETTINGS] key=value", help="settings that replace those of RUN; run=FOLDER for the students"
        ),
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="learn of the best scored checkpoint, not the newest")] = False,
    at: Annotated[int | None, typer.Option(min=0, metavar="STEP", help="learn of the checkpoint of this step")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print all settings and the plan of students, and stop.")
    ] = False,
    address: Address = None,
) -> None:
    """Trains students that make in one pass what the flow experts of RUN make in many.

    Run the same command again to resume. Exits 75 when a signal stopped it.
    """
    if best and at is not None:
        raise InputError(f"--best and --at {at} name two checkpoints: leave one of them out")
    from launch.commands.distil import Choice, prepare_distillation

    settings = prepare_distillation(Choice(run, at, best), texts or [], _note, dry_run=dry_run)
    _train(settings, address, dry_run=dry_run)


@app.command("submit")
def submit_command(
    settings: Settings,
    address: Annotated[str, typer.Option(metavar="URL", help="address of the cluster's dashboard, http://head:8265")],
    overrides: Overrides = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="print the job's log to its end and exit with its exit code")
    ] = False,
    installed: Annotated[
        bool, typer.Option("--installed", help="use the freqgan that the cluster has, in place of a copy of this one")
    ] = False,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="a variable of this environment that the job gets")
    ] = None,
) -> None:
    """Trains as a job of a Ray cluster; submitting a run again goes on with it.

    With --follow it exits as the training does: 0, 2, 3, or 75 when it was stopped.
    """
    from launch.settings.load import load_settings

    loaded = load_settings(settings, overrides or [])
    from launch.commands.submit import submit

    raise typer.Exit(
        submit(loaded, address=address, follow=follow, installed=installed, variables=env or [], say=_say, note=_note)
    )


@app.command("status")
def status_command(
    target: Annotated[
        str,
        typer.Argument(metavar="RUN|URL", help="run folder, a path or s3:// URL; or the URL of a cluster's dashboard"),
    ],
) -> None:
    """Prints how a run is doing, from what it has stored; or the jobs of a cluster."""
    if not target.startswith(("http://", "https://")):
        from cluster.run.presence import check_run

        check_run(target)
    from launch.commands.status import print_status

    print_status(target)


@app.command("retrain")
def retrain_command(
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="YAML file, a path or s3:// URL")],
    address: Address = None,
) -> None:
    """Trains a model on shards that are new since its last version, and puts it in use if it is good enough.

    Safe to run on a schedule, twice at once, and after being killed: it goes on where it was. Exits 75 when a signal
    stopped it.
    """
    from launch.settings.policy import load_policy

    loaded = load_policy(policy)
    from launch.commands.retrain import retrain

    raise typer.Exit(retrain(loaded, print, _note, address))


@models.command("list")
def models_list_command(model: Model) -> None:
    """Prints a table of the versions of MODEL."""
    from launch.commands.models import list_models

    list_models(model)


@models.command("show")
def models_show_command(
    model: Model,
    number: Annotated[
        int | None, typer.Argument(min=1, help="number of the version", show_default="the one in use")
    ] = None,
) -> None:
    """Prints as JSON where a version comes from: data, code, settings, metrics, verdict, and when it was put in use."""
    from launch.commands.models import show_model

    show_model(model, number)


@models.command("promote")
def models_promote_command(
    model: Model, number: Annotated[int, typer.Argument(min=1, help="number of the version")]
) -> None:
    """Puts a version in use, whatever the gate said about it."""
    from launch.commands.models import promote_model

    print(promote_model(model, number))


@models.command("rollback")
def models_rollback_command(model: Model) -> None:
    """Puts the version in use that was in use before."""
    from launch.commands.models import roll_back_model

    print(roll_back_model(model))


def _check_places(places: str | None) -> str | None:
    from launch.settings.places import load_places

    if places is not None:
        load_places(places)
    return places


def _check_nodes(nodes: str | None) -> str | None:
    from cluster.planning.devices import parse_nodes

    if nodes is not None:
        parse_nodes(nodes)
    return nodes


Nodes = Annotated[
    str | None,
    typer.Option(
        metavar="NODES",
        help="such as 4xH100,2xT4:spot,16*8xA100",
        show_default="this machine",
        callback=_check_nodes,
    ),
]
Places = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="YAML file of machines in several places with their prices, for pace=free",
        callback=_check_places,
    ),
]
DoneBy = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="36h, 3d or 2026-03-02T08:00: the cheapest plan in time, for pace=free"),
]
Beside = Annotated[
    str | None,
    typer.Option(metavar="SETTINGS", help="another model, whose pipeline --simulate draws beside a free pace"),
]


@app.command("plan")
def plan_command(
    settings: Settings,
    overrides: Overrides = None,
    nodes: Nodes = None,
    places: Places = None,
    done_by: DoneBy = None,
    beside: Beside = None,
    link_gbit: Annotated[
        float, typer.Option(min=0.001, callback=_finite, help="what a machine can send, Gbit/s")
    ] = 10.0,
    cut: Annotated[
        bool, typer.Option("--cut/--whole", help="whether stages may be cut into replicas, or stay whole")
    ] = True,
    measured: Annotated[
        bool,
        typer.Option(
            "--measure/--estimate",
            help="measure the stages here if this machine has what NODES names, or estimate them from data sheets",
        ),
    ] = True,
    simulate: Annotated[
        str | None,
        typer.Option(
            metavar="A..B", help="simulate numbers of devices of the first type, such as 1..1024; needs --out"
        ),
    ] = None,
    failures: Annotated[
        float, typer.Option(min=0, callback=_finite, help="failures per device and hour, for --simulate")
    ] = 0.05,
    out: Annotated[str | None, typer.Option(help="folder or s3:// URL for plan.json and simulation.png")] = None,
) -> None:
    """Prints the stages, what they cost, where they would run and how fast that would be. Trains nothing."""
    from launch.settings.load import load_settings

    loaded = load_settings(settings, overrides or [])
    if loaded.pace == "free":
        from launch.commands.free_plan import free_plan_command as free_plan

        free_plan(
            loaded, nodes=nodes, places=places, done_by=done_by, beside=load_settings(beside, []) if beside else None,
            link_gbit=link_gbit, cut=cut, measured=measured, simulated=simulate, out=out, note=_note,
        )  # fmt: skip
        return
    for option, value in (("--places", places), ("--done-by", done_by), ("--beside", beside)):
        if value is not None:
            raise InputError(
                f"{option}: all stages of a run with pace=together train in one cluster; set pace=free, or give --nodes"
            )
    from launch.commands.plan import plan_command as plan

    plan(
        loaded, nodes=nodes, link_gbit=link_gbit, cut=cut, measured=measured,
        simulated=simulate, failures_per_hour=failures, out=out, note=_note,
    )  # fmt: skip


Vector = Annotated[
    str | None,
    typer.Option(metavar="FILE.npy", help="embedding that the images are to have, or one for each (d or n x d)"),
]
Prompt = Annotated[str | None, typer.Option(metavar="TEXT", help="text that the images are to show")]
Like = Annotated[
    str | None, typer.Option(metavar="IMAGE", help="example whose features the images are to have: a path or s3:// URL")
]
Vectors = Annotated[
    str | None,
    typer.Option(
        "--vectors",
        "--noises",
        metavar="FILE",
        help="draw the images whose noises `freqgan encode` or --save-vectors wrote here",
    ),
]
SaveVectors = Annotated[
    bool, typer.Option("--save-vectors", help="write noises and targets of the images beside them, for --vectors")
]
Truncation = Annotated[
    float, typer.Option(min=0, callback=_finite, help="times all noise: below 1 more usual, and less varied")
]
Interpolation = Annotated[
    tuple[int, int] | None,
    typer.Option(metavar="A B", help="the way from the first image of seed A to that of seed B, and animations"),
]
Frames = Annotated[int | None, typer.Option(min=2, show_default="16", help="pictures of --interpolate, ends included")]
Mixture = Annotated[
    tuple[int, int] | None,
    typer.Option(metavar="COARSE FINE", help="the pictures of seed COARSE with the detail of seed FINE"),
]
MixPlace = Annotated[
    str | None,
    typer.Option(
        metavar="LEVEL|time",
        show_default="1",
        help="of --mix: up to the low band of this level the picture is of COARSE; time: what is in a clip is of "
        "COARSE, and how it moves of FINE",
    ),
]
MixBy = Annotated[
    str | None,
    typer.Option(
        show_default="noise",
        metavar="[noise|coefficients]",
        help="of noise, the chain makes detail that fits; finished coefficients put together do not fit",
    ),
]
ConditioningRun = Annotated[
    str | None,
    typer.Option(
        "--conditioning-run",
        metavar="RUN",
        help="run whose images a model of conditioning.run follows",
        show_default="that of its settings",
    ),
]
FileFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="[png|npy|webp|gif|apng|mp4|dicom|nifti]",
        show_default="png; webp for clips; npy for what neither holds",
        help="of the files",
    ),
]
Reference = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        show_default="spacing of the data, or 1 mm",
        help="scan whose spacing, and of NIfTI affine and zooms, those of --format dicom or nifti are to have",
    ),
]
OneFile = Annotated[
    bool, typer.Option("--one-file", help="of --format dicom: a volume is one file, and not one for every slice")
]
Fps = Annotated[float | None, typer.Option(min=0.01, show_default="8", help="frames a second of clips")]
Part = Annotated[
    str,
    typer.Option(
        metavar="[image|chain|companion]",
        help="the blended image, that of the chain of bands alone, or that of the other generator alone",
    ),
]


def _check_mixture(mix: tuple[int, int] | None, at: str | None, mix_by: str | None) -> None:
    if mix is None and (at is not None or mix_by is not None):
        raise InputError("--at and --mix-by without --mix COARSE FINE: they say how that mixes; give both")
    if at is not None and at != "time" and not (at.isascii() and at.isdecimal()):
        raise InputError(f"--at {at}: give a level, such as 1, or time")


@app.command("generate")
def generate_command(
    run: Run,
    out: Annotated[str, typer.Option(help="folder or s3:// URL for the images")],
    count: Annotated[
        int | None, typer.Option(min=1, help="how many images; those of --vectors, or it is needed")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same images")] = 0,
    category: Category = None,
    vector: Vector = None,
    prompt: Prompt = None,
    like: Like = None,
    best: Annotated[bool, typer.Option("--best", help="use the best scored checkpoint, not the newest")] = False,
    at_images: AtImages = None,
    vectors: Vectors = None,
    save_vectors: SaveVectors = False,
    truncation: Truncation = 1.0,
    interpolate: Interpolation = None,
    frames: Frames = None,
    mix: Mixture = None,
    at: MixPlace = None,
    mix_by: MixBy = None,
    evaluations: Evaluations = None,
    solver: FlowSolver = None,
    condition_noise: ConditionNoise = None,
    guidance: Guidance = None,
    shift: Shift = None,
    label_guidance: LabelGuidance = None,
    part: Part = "image",
    conditioning_run: ConditioningRun = None,
    file_format: FileFormat = None,
    fps: Fps = None,
    reference: Reference = "",
    one_file: OneFile = False,
) -> None:
    """Makes images with the newest sound checkpoint of RUN: one file each, and grid.png."""
    from cluster.imaging.image_writing import USUAL_FPS
    from freqgan.generation.options import GenerationOptions
    from launch.settings.image_request import ImageRequest
    from launch.settings.target_options import TargetOptions

    request = ImageRequest(
        run=run, out=out, count=count, seed=seed, truncation=truncation,
        targets=TargetOptions(category, vector, prompt, like),
        generation=GenerationOptions(evaluations, solver, condition_noise, guidance, shift, label_guidance), part=part,
        best=best, at_images=at_images, save_vectors=save_vectors, conditioning_run=conditioning_run,
        kind=file_format or "", fps=fps or USUAL_FPS, reference=reference, one_file=one_file,
    )  # fmt: skip
    if interpolate is None and frames is not None:
        raise InputError(f"--frames {frames} without --interpolate A B: it counts its pictures; give both")
    _check_mixture(mix, at, mix_by)
    if sum(way is not None for way in (vectors, interpolate, mix)) > 1:
        raise InputError("--vectors, --interpolate and --mix are three ways to choose the noise: leave all but one out")
    if vectors is not None:
        from launch.commands.encode import generate_from

        print(generate_from(request, vectors, _note))
    elif interpolate is not None:
        from launch.commands.interpolate import interpolate as write_frames

        print(write_frames(request, interpolate, frames or 16, _note))
    elif mix is not None:
        from launch.commands.mix import mix as write_mixed

        print(write_mixed(request, mix, "time" if at == "time" else int(at or 1), mix_by or "noise", _note))
    else:
        with uncollected():
            from launch.commands.generate import generate
        print(generate(request, _note))


Host = Annotated[str, typer.Option(help="to listen at; any but loopback needs a token")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="to listen at; 0 for a free one")]
TokenFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", show_default="FREQGAN_TOKEN", help="file with the token that requests must carry"),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="write no lines for requests")]


@app.command("watch")
def watch_command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="run folder, a path or s3:// URL")],
    port: Port = 8001,
    host: Host = "127.0.0.1",
    token_file: TokenFile = None,
    quiet: Quiet = False,
) -> None:
    """Shows in a browser how a training does, until it is stopped. Needs the extra `serve`.

    Progress, samples, losses, scores, stages that wait and failures come from what RUN has stored: it may be trained
    elsewhere, or be over.
    """
    from launch.settings.exposure import check_exposure, check_extra, read_token

    check_extra()
    check_exposure(host, token := read_token(token_file))
    from cluster.run.presence import check_run

    check_run(run)
    from launch.commands.watch import watch_command as watch

    print(watch(run, host=host, port=port, token=token, quiet=quiet, note=_note))


@app.command("serve")
def serve_command(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="a run, an exported folder, or <models>/<name>", callback=_check_run),
    ],
    port: Port = 8000,
    host: Host = "127.0.0.1",
    token_file: TokenFile = None,
    replicas: Annotated[int, typer.Option(min=1, max=1024, help="workers, each with the model in its memory")] = 1,
    device: Annotated[str, typer.Option(metavar="[cpu|cuda]", help="on which a worker generates")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, max=1024, help="of each worker, on a CPU")] = 1,
    max_count: Annotated[int, typer.Option(min=1, max=4096, help="images of one request")] = 64,
    max_evaluations: Annotated[int, typer.Option(min=1, max=1000, help="passes of a flow expert's network")] = 200,
    max_upload: Annotated[float, typer.Option(min=0.001, max=1024, metavar="MIB", help="size of an upload")] = 8.0,
    max_pixels: Annotated[int, typer.Option(min=1, help="pixels of an image that is sent, by its header")] = 4 * 2**20,
    max_queue: Annotated[int, typer.Option(min=1, max=65536, help="requests that are answered or wait")] = 128,
    max_seconds: Annotated[float, typer.Option(min=0.1, max=86400, help="for an answer")] = 60.0,
    follow: Annotated[bool, typer.Option("--follow", help="load newer checkpoints of a run as they come")] = False,
    poll: Annotated[float, typer.Option(min=0.1, max=86400, metavar="SECONDS", help="between looks for these")] = 5.0,
    live: Annotated[bool, typer.Option("--live", help="show the training of a run as well, as `watch` does")] = False,
    quiet: Quiet = False,
    address: Address = None,
) -> None:
    """Answers requests over HTTP with images of MODEL, until it is stopped. Needs the extra `serve`.

    Of a retrained model it is the version in use: promotions and roll-backs are followed.
    """
    from launch.settings.exposure import check_device, check_exposure, check_extra, read_token

    check_extra()
    check_device(device)
    check_exposure(host, token := read_token(token_file))
    from cluster.serving.limits import MEBIBYTE, Limits
    from launch.commands.serve import ServeRequest
    from launch.commands.serve import serve_command as serve

    limits = Limits(
        count=max_count, evaluations=max_evaluations, upload_bytes=round(max_upload * MEBIBYTE), pixels=max_pixels,
        queue=max_queue, seconds=max_seconds,
    )  # fmt: skip
    request = ServeRequest(
        model, host, port, token, replicas, device, threads, limits, live=live, follow=follow, poll_s=poll,
        address=address, quiet=quiet,
    )  # fmt: skip
    print(serve(request, _note))


@app.command("export")
def export_command(
    run: Run,
    out: Annotated[str, typer.Option(help="folder or s3:// URL for the model")],
    onnx: Annotated[bool, typer.Option("--onnx", help="write model.onnx too, and compare its pixels")] = False,
    program: Annotated[bool, typer.Option("--program", help="write model.pt2 of torch.export too")] = False,
    license_name: Annotated[
        str, typer.Option("--license", metavar="SPDX", help="license of the model, for its card")
    ] = "other",
    best: Annotated[bool, typer.Option("--best", help="use the best scored checkpoint, not the newest")] = False,
    at_images: AtImages = None,
    evaluations: Evaluations = None,
    solver: FlowSolver = None,
    condition_noise: ConditionNoise = None,
    guidance: Guidance = None,
    shift: Shift = None,
    label_guidance: LabelGuidance = None,
) -> None:
    """Writes the model of RUN into a folder that stands alone: averaged weights, settings, a card, and samples.

    `freqgan.load_model(FOLDER)` opens it, and commands that take a RUN take it too. The options of generation become
    the model's own.
    """
    from freqgan.generation.options import GenerationOptions
    from launch.commands.export import ExportRequest, export

    request = ExportRequest(
        run, out, onnx=onnx, program=program, license=license_name, best=best, at_images=at_images,
        generation=GenerationOptions(evaluations, solver, condition_noise, guidance, shift, label_guidance),
    )  # fmt: skip
    for line in export(request, _note):
        print(line)


@app.command("super-resolve")
def super_resolve_command(
    run: Run,
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="small images, or large ones to compare with")
    ],
    out: Annotated[str, typer.Option(help="folder or s3:// URL for the results")],
    from_level: Annotated[
        int, typer.Option(min=1, help="an input is the low band of this level; 1 doubles its side, or its frames")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="seed of the detail that is made up")] = 0,
    category: Category = None,
    axis: Annotated[
        str, typer.Option("--in", metavar="[space|time]", help="what is made finer: pixels, or the frames of clips")
    ] = "space",
    evaluations: Evaluations = None,
    solver: FlowSolver = None,
    condition_noise: ConditionNoise = None,
    guidance: Guidance = None,
    shift: Shift = None,
    label_guidance: LabelGuidance = None,
) -> None:
    """Enlarges images: their coarse bands stay as they are, the chain of RUN makes the finer ones."""
    from freqgan.generation.options import GenerationOptions
    from launch.commands.super_resolve import super_resolve_command as super_resolve

    if axis not in ("space", "time"):
        raise InputError(f"--in {axis}: give space or time")
    lines = super_resolve(
        run, images, level=from_level, out=out, seed=seed, category=category, note=_note,
        generation=GenerationOptions(evaluations, solver, condition_noise, guidance, shift, label_guidance),
        in_time=axis == "time",
    )  # fmt: skip
    for line in lines:
        print(line)


@app.command("encode")
def encode_command(
    run: Run,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="image files, paths or s3:// URLs")],
    out: Annotated[str, typer.Option(help="folder or s3:// URL for the noises and the pictures")],
    seed: Annotated[int, typer.Option(min=0, help="seed of the noise on conditions, if RUN has such")] = 0,
    category: Category = None,
) -> None:
    """Finds the noises from which a model of flow experts makes given images, and makes them again.

    `freqgan generate RUN --noises` draws images from such a file.
    """
    from launch.commands.encode import encode_command as encode

    for line in encode(run, images, out=out, seed=seed, category=category, note=_note):
        print(line)


@app.command("edit")
def edit_command(
    run: Run,
    out: Annotated[str, typer.Option(help="folder or s3:// URL for the images before and after")],
    seed: Annotated[int, typer.Option(min=0, help="seed of the images to edit, as for generate")] = 0,
    count: Annotated[int, typer.Option(min=1, max=64, help="how many images")] = 8,
    resample: Annotated[str, typer.Option(metavar="BANDS", help="bands to draw anew, such as HL1,LH1")] = "",
    resample_seed: Annotated[
        int | None,
        typer.Option(
            min=0, show_default="SEED + 1, with --image 1", help="seed of what is drawn anew, another one than SEED"
        ),
    ] = None,
    gain: Annotated[list[str] | None, typer.Option(metavar="BAND=X", help="multiplies a band; may be repeated")] = None,
    image: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="edit this image, not generated ones; may be repeated")
    ] = None,
    category: Category = None,
    evaluations: Evaluations = None,
    solver: FlowSolver = None,
    condition_noise: ConditionNoise = None,
    guidance: Guidance = None,
    shift: Shift = None,
    label_guidance: LabelGuidance = None,
) -> None:
    """Changes single bands of generated or given images and leaves all others as they are."""
    from freqgan.generation.options import GenerationOptions
    from launch.commands.edit import edit_command as edit

    bands = [name.strip() for name in resample.split(",") if name.strip()]
    print(
        edit(
            run, seed=seed, count=count, resample=bands, resample_seed=resample_seed, gains=gain or [], out=out,
            note=_note, images=image or [], category=category,
            generation=GenerationOptions(evaluations, solver, condition_noise, guidance, shift, label_guidance),
        )
    )  # fmt: skip


@app.command("decompose")
def decompose_command(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="JPEG, PNG or WebP file, a path or s3:// URL")],
    out: Annotated[str, typer.Option(help="folder or s3:// URL for the picture and the bands")],
    transform: Annotated[
        str, typer.Option(help="dwt:<wavelet>, dct, fft:shannon, fft:meyer or radial:P,Q")
    ] = "dwt:haar",
    levels: Annotated[int, typer.Option(min=1, max=10, help="number of resolutions; P of radial:P,Q")] = 3,
    packets: Annotated[
        str, typer.Option(metavar="LEVEL=TIMES,...", help="split the high bands of these levels again")
    ] = "",
    reconstruct: Annotated[bool, typer.Option("--reconstruct", help="put them together again and compare")] = False,
) -> None:
    """Takes an image apart into its bands: a picture of all of them, a table, and the numbers themselves."""
    from cluster.imaging.decomposition import parse_packets
    from launch.commands.decompose import decompose_command as decompose

    lines = decompose(
        image, transform=transform, levels=levels, packets=parse_packets(packets), out=out, reconstruct=reconstruct
    )
    print("\n".join(lines))


@app.command("style")
def style_command(
    content: Annotated[str, typer.Argument(metavar="CONTENT", help="image, or folder of images, that is changed")],
    style: Annotated[
        str, typer.Argument(metavar="STYLE", help="image, or folder of images, whose colours and textures it takes")
    ],
    out: Annotated[str, typer.Option(help="folder or s3:// URL for the results and sheet.png")],
    method: Annotated[
        str, typer.Option(metavar="[bands|gatys]", help="transport between bands, or optimisation by VGG19's features")
    ] = "bands",
    mask: Annotated[
        str | None, typer.Option(metavar="FILE", help="image of the size of CONTENT, white where the style goes")
    ] = None,
    strength: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[LEVEL=]X",
            show_default="1",
            help="bands: from 0 to 1, of all levels, of one, or of the colours (LL=X); may be repeated",
        ),
    ] = None,
    levels: Annotated[
        int | None, typer.Option(min=1, max=10, show_default="4, of small images fewer", help="bands: resolutions")
    ] = None,
    transform: Annotated[
        str | None,
        typer.Option(show_default="dwt:db4", help="bands: dwt:<wavelet>, dct, fft:shannon, fft:meyer or radial:P,Q"),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, show_default="0", help="bands: seed of the transports")] = None,
    vgg: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="gatys: weights of VGG19, as torchvision's .pth or as safetensors"),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, show_default="200", help="gatys: steps of L-BFGS")] = None,
    style_weight: Annotated[
        float | None,
        typer.Option(
            callback=_positive, show_default="1e6", help="gatys: weight of the style, against 1 of the content"
        ),
    ] = None,
) -> None:
    """Gives images the colours and textures of others; edges stay where they are.

    Nothing is trained, and --method bands needs no weights.
    """
    from freqgan.generation.style_options import StyleOptions

    options = StyleOptions(method, transform, levels, tuple(strength or ()), seed, vgg, steps, style_weight)
    from cluster.run.presence import check_pictures

    check_pictures(content, style, *(one for one in (mask, vgg) if one is not None))
    from launch.commands.style import style_command as transfer

    for line in transfer(content, style, out=out, mask=mask, options=options, note=_note):
        print(line)


@app.command("digest")
def digest_command(
    run: Run,
    stages: Annotated[
        bool, typer.Option("--stages", help="print that of every stage first, with its own step")
    ] = False,
) -> None:
    """Prints the sha256 of all weights and optimiser states of the newest sound checkpoint of RUN."""
    from cluster.run.checkpoints import open_checkpoint

    checkpoint, digest, by_stage = open_checkpoint(
        run, lambda one: (one, one.digest(), one.stage_digests() if stages else {}), note=_note
    )
    for name, own in by_stage.items():
        print(f"{name} step {checkpoint.stage_steps[name]} sha256 {own}")
    print(f"step {checkpoint.step} sha256 {digest}")


OverEvaluations = Annotated[
    str | None,
    typer.Option(metavar="N,N,...", help="of flow experts: a few metrics by numbers of passes, such as 1,2,4,8,16,32"),
]
OverConditionNoise = Annotated[
    str | None,
    typer.Option(
        metavar="X,X,...", help="the same by strengths of the noise on the bands that they see, such as 0,0.1,0.2"
    ),
]
Students = Annotated[
    str | None, typer.Option(metavar="RUN", help="a run of students, for --over-evaluations to measure beside it")
]
Inception = Annotated[
    str | None, typer.Option(metavar="FILE", help="TorchScript network for FID, KID, precision and recall")
]


def _size(text: str | None) -> Size | None:
    """Return height and width, both 8 to 4096; InputError for anything else."""
    if text is None:
        return None
    try:
        size = parse_size(text)
    except ValueError as error:
        raise InputError(f"--size: {error}") from error
    if not all(8 <= side <= 4096 for side in size):
        raise InputError(f"--size {text}: each side has to be 8 to 4096 pixels")
    return size


def _refuse_beside_curves(given: Mapping[str, object], evaluations: int | None) -> None:
    """Raise InputError for options, {name: value or None}, that curves of quality have no use for."""
    if any(value is not None for value in given.values()):
        names = f"{', '.join(list(given)[:-1])} and {list(given)[-1]}"
        raise InputError(
            f"--over-evaluations measures images of the newest checkpoint of a run as they are: leave {names} out"
        )
    if evaluations is not None:
        raise InputError(
            f"--evaluations {evaluations}: --over-evaluations says with how many passes images are generated; leave it "
            "out, or add --over-condition-noise"
        )


@app.command("evaluate")
def evaluate_command(
    source: Annotated[str, typer.Argument(metavar="RUN|FOLDER", help="a run, or a folder or .zip of images")],
    data: Annotated[str, typer.Option(help="shards of real images: folder, glob or s3:// URL")],
    count: Annotated[int, typer.Option(min=1, help="how many images to compare")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="seed of the images of a run")] = 0,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="pixels for a FOLDER: a side, or HEIGHTxWIDTH",
            show_default="the shorter side of its first image",
        ),
    ] = None,
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE", help="also write the scores here")] = None,
    inception: Inception = None,
    parts: Annotated[
        bool, typer.Option("--parts", help="score the chain and the conventional generator of a run alone as well")
    ] = False,
    learned: Learned = True,
    over_evaluations: OverEvaluations = None,
    over_condition_noise: OverConditionNoise = None,
    students: Students = None,
    at_images: AtImages = None,
    conditioning_run: ConditioningRun = None,
    evaluations: Evaluations = None,
    solver: FlowSolver = None,
    condition_noise: ConditionNoise = None,
    guidance: Guidance = None,
    shift: Shift = None,
    label_guidance: LabelGuidance = None,
) -> None:
    """Measures how far images are from real ones: value, floor (real against real) and their ratio.

    At least 64 generated and 128 real images are needed; below 1,000 the values are mostly noise.
    """
    from cluster.run.presence import check_data, check_images

    check_images(source)
    check_data(data)
    if students is not None:
        _check_run(students)
    from freqgan.generation.options import GenerationOptions

    if over_evaluations is not None or over_condition_noise is not None or students is not None:
        given = {"--size": size, "--parts": parts or None, "--inception": inception, "--at-images": at_images}
        given |= {"--conditioning-run": conditioning_run}
        _refuse_beside_curves(given, evaluations if over_condition_noise is None else None)
        from launch.commands.quality_curves import quality_curves_command

        quality_curves_command(
            source, data, evaluations=over_evaluations, condition_noise=over_condition_noise, count=count, seed=seed,
            json_file=json_file, students=students, note=_note, learned=learned,
            generation=GenerationOptions(evaluations, solver, condition_noise, guidance, shift, label_guidance),
        )  # fmt: skip
        return
    with uncollected():
        from launch.commands.evaluate import evaluate_command as evaluate
    evaluate(
        source, data, count=count, seed=seed, size=_size(size), json_file=json_file, parts=parts, inception=inception,
        learned=learned, at_images=at_images, note=_note, base=conditioning_run,
        generation=GenerationOptions(evaluations, solver, condition_noise, guidance, shift, label_guidance),
    )  # fmt: skip


@app.command("tune")
def tune_command(
    run: Run,
    data: Annotated[
        str | None, typer.Option(help="shards of real images", show_default="those that RUN was trained on")
    ] = None,
    count: Annotated[int, typer.Option(min=64, help="images generated for each trial")] = 2_000,
    seed: Annotated[int, typer.Option(min=0, help="seed of these images: best another than that of evaluate")] = 1,
    evaluations: Annotated[
        int, typer.Option(min=1, max=1000, help="passes through a flow expert's network for one sample, at most")
    ] = 20,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="also write the best options and all trials here")
    ] = None,
) -> None:
    """Tries out how the flow experts of RUN generate best, and prints the options of generate and evaluate for it.

    Trials are scored by the distance learned.frechet to training images, with a network taught on these.
    """
    from launch.commands.tune import tune_command as tune

    tune(run, data, evaluations=evaluations, count=count, seed=seed, json_file=json_file, note=_note)


@app.command("compare")
def compare_command(
    settings: Settings,
    data: Annotated[str, typer.Option(help="shards of real images that are not trained on, to measure against")],
    out: Annotated[str, typer.Option(help="local folder for all runs, the table and the page")],
    overrides: Overrides = None,
    presets: Annotated[
        str,
        typer.Option(help=f"systems to compare, of {SYSTEMS}; NAME=SETTINGS is one with a file or preset of its own"),
    ] = COMPARED,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="runs of each system")] = 3,
    budget: Annotated[int | None, typer.Option(min=1, help="images seen by each run", show_default="as set")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            callback=_positive,
            help="in place of equal images: as many as each system trains in so many minutes of one process, by steps "
            "that are timed here at the start",
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=64, help="images measured of each run")] = 10_000,
    jobs: Annotated[int | None, typer.Option(min=1, help="processes at a time", show_default="cores / threads")] = None,
    learned: Learned = True,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="have flow experts measured as they generate best, as `freqgan tune` finds it"),
    ] = False,
    evaluations: Annotated[
        int, typer.Option(min=1, max=1000, help="for --tune: passes through a flow expert's network, at most")
    ] = 20,
    curves: Annotated[
        bool,
        typer.Option("--curves", help="of flow experts: learned distances by passes, and by noise on what they see"),
    ] = False,
) -> None:
    """Trains systems of equal cost on equal images, or for equal time, and measures them alike.

    Run it again to go on.
    """
    from cluster.run.presence import check_data
    from launch.settings.load import load_settings

    loaded = load_settings(settings, overrides or [])
    check_data(loaded.data, data)
    from launch.commands.compare import compare, comparison_of

    comparison = comparison_of(
        loaded, systems=presets, seeds=seeds, budget=budget, minutes=minutes, out=out, held_out=data, count=count,
        jobs=jobs, learned=learned, most_evaluations=evaluations if tune else None, curves=curves,
    )  # fmt: skip
    code, text = compare(comparison, note=_note)
    print(text)
    raise typer.Exit(code)


@app.command("report")
def report_command(
    run: Run,
    data: Annotated[
        str | None, typer.Option(help="shards of real images, where they are no longer those of RUN")
    ] = None,
    at_images: AtImages = None,
    evaluations: Evaluations = None,
    solver: FlowSolver = None,
    condition_noise: ConditionNoise = None,
    guidance: Guidance = None,
    shift: Shift = None,
    label_guidance: LabelGuidance = None,
) -> None:
    """Writes report.html anew: real and generated images, every band, whether the bands fit, losses."""
    from freqgan.generation.options import GenerationOptions
    from launch.pages.report import write_report

    options = GenerationOptions(evaluations, solver, condition_noise, guidance, shift, label_guidance)
    print(write_report(run, data=data, note=_note, at_images=at_images, generation=options))


if __name__ == "__main__":
    main()
