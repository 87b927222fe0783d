# SPDX-License-Identifier: Apache-2.0
import argparse
import json
import os
import sys
from pathlib import Path

from . import schema
from .count import parameters
from .difference import diff
from .errors import ManifestError, printable
from .job_module import build, describe, hf_trainer_groups
from .loading import load
from .page import summary
from .picture import picture
from .plan import OFFLOADS, PRECISIONS, size_of_gpu, world_sizes_of
from .plan_page import as_json, page, title_of

SRC = (
    "SRC is a manifest (NAME.pb, NAME.json), or a checkpoint that crossdock reads: a folder, a file, org/name of the "
    "Hugging Face cache."
)
OPTIONS = "What follows -- goes to `crossdock inspect`, as in: plan checkpoints -- --from-tag global_step400"


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    at = argv.index("--") if "--" in argv else len(argv)
    args = parser().parse_args(argv[:at])
    args.options = argv[at + 1 :]
    try:
        return args.run(args)
    except ManifestError as error:
        print(f"crossdock_manifest: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # of a reader that has seen enough: head, less
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def parser():
    out = argparse.ArgumentParser(
        prog="python -m crossdock_manifest",
        description="Reads, compares and plans with the manifest of a model.",
        epilog=f"{SRC} {OPTIONS}",
    )
    verbs = out.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name, run, help_, *sources):
        made = verbs.add_parser(
            name,
            help=help_,
            description=f"{help_[0].upper()}{help_[1:]}.",
            epilog=f"{SRC} {OPTIONS}" if sources else None,
        )
        for source in sources:
            made.add_argument(source.lower(), metavar=source)
        if sources:
            made.add_argument(
                "--crossdock",
                metavar="FILE",
                help="the crossdock command (default: the one beside this package, then PATH)",
            )
        made.set_defaults(run=run)
        return made

    show = verb("show", run_show, "print what a checkpoint holds", "SRC")
    show.add_argument("--tensors", action="store_true", help="a line per tensor")
    difference = verb(
        "diff",
        run_diff,
        "print how two checkpoints differ in tensors and config.json; exit code 0: not, 1: they do",
        "A",
        "B",
    )
    difference.add_argument("--json", action="store_true", help="as JSON")
    add_plan(
        verb(
            "plan", run_plan, "print parameters, checkpoint sizes and the memory of training at each ZeRO stage", "SRC"
        )
    )
    verb("schema", run_schema, "print the manifest's schema in protobuf's language, for protoc")
    module = verb(
        "describe", run_describe, "describe a Hugging Face model, without its weights, for crossdock convert --target"
    )
    module.add_argument(
        "model", metavar="MODEL_OR_CONFIG", help="a folder with config.json, the file itself, or a Hub name"
    )
    module.add_argument("-o", "--output", required=True, type=Path, metavar="FILE")
    module.add_argument(
        "--param-groups",
        choices=["single", "hf-trainer"],
        default="single",
        help="the optimizer's groups: one, or the Trainer's two (decay, no decay)",
    )
    module.add_argument(
        "--weight-decay", type=float, help="of the first of the Trainer's groups (default: crossdock's --weight-decay)"
    )
    return out


def add_plan(verb):
    verb.add_argument(
        "--world-size", default="1,2,4,8,16,32,64", metavar="N,...", help="numbers of GPUs (default 1,2,4,8,16,32,64)"
    )
    verb.add_argument(
        "--precision",
        default="bf16",
        choices=[*PRECISIONS, "all"],
        help="; ".join(f"{name}: {p.text}" for name, p in PRECISIONS.items()) + " (default bf16)",
    )
    verb.add_argument(
        "--offload",
        default="none",
        choices=OFFLOADS,
        help="optimizer: its states and gradients lie in the host's memory (stages 1 to 3); all: weights too (stage 3)",
    )
    verb.add_argument("--gpu-memory", metavar="SIZE", help="of one GPU, such as 80GiB: marks what fits")
    verb.add_argument(
        "--gpus-per-node", type=int, default=8, metavar="N", help="for the host's memory with --offload (default 8)"
    )
    verb.add_argument("--trainable", metavar="REGEX", help="only parameters of these names are trained")
    verb.add_argument("--frozen", metavar="REGEX", help="parameters of these names are not trained")
    verb.add_argument("--picture", type=Path, metavar="FILE.svg", help="also draw it")
    verb.add_argument("--json", action="store_true", help="bytes, as JSON")


def run_show(args):
    print(summary(load(args.src, crossdock=args.crossdock, options=args.options), tensors=args.tensors))


def run_diff(args):
    found = diff(*(load(source, crossdock=args.crossdock, options=args.options) for source in (args.a, args.b)))
    print(json.dumps(found.to_json(), indent=1, default=repr) if args.json else found)
    return int(bool(found))


def run_plan(args):
    if args.gpus_per_node < 1:
        raise ManifestError(f"expected a number of GPUs of a node, found {args.gpus_per_node}")
    world_sizes = world_sizes_of(args.world_size)
    gpu_bytes = size_of_gpu(args.gpu_memory) if args.gpu_memory else None
    if args.picture and args.picture.suffix != ".svg":
        raise ManifestError(f"expected a file FILE.svg for the picture, found {printable(args.picture)}")
    manifest = load(args.src, crossdock=args.crossdock, options=args.options)
    precisions = list(PRECISIONS) if args.precision == "all" else [args.precision]
    given = (
        title_of(manifest, args.src),
        parameters(manifest, args.trainable, args.frozen),
        precisions,
        world_sizes,
        args.offload,
        gpu_bytes,
        args.gpus_per_node,
    )
    print(json.dumps(as_json(*given), indent=1) if args.json else page(*given))
    if args.picture:
        try:
            args.picture.write_text(picture(*given), encoding="utf-8")
        except OSError as error:
            raise ManifestError(
                f"expected to write the picture to {printable(args.picture)}, found {error.strerror}"
            ) from None


def run_schema(_):
    print(schema.proto_text(), end="")


def run_describe(args):
    try:
        model = build(args.model)
    except (OSError, ValueError, AttributeError) as error:
        raise ManifestError(f"expected a model that transformers can build from {args.model}: {error}") from None
    groups = hf_trainer_groups(model, args.weight_decay) if args.param_groups == "hf-trainer" else None
    args.output.write_bytes(describe(model, groups=groups))
    print(f"{args.output}: {type(model).__name__}, {len(model.state_dict())} tensors")


if __name__ == "__main__":
    sys.exit(main())
