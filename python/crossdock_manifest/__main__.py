import argparse
import sys
from pathlib import Path

from crossdock_manifest import build, describe, hf_trainer_groups


def main():
    parser = argparse.ArgumentParser(prog="python -m crossdock_manifest", description="describes a model for crossdock convert --target")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("describe", help="order, shapes, tied names and buffers of a Hugging Face model, without its weights")
    verb.add_argument("model", metavar="MODEL_OR_CONFIG", help="a folder with config.json, the file itself, or a Hub name")
    verb.add_argument("-o", "--output", required=True, type=Path, metavar="FILE")
    verb.add_argument("--param-groups", choices=["single", "hf-trainer"], default="single",
                      help="the optimizer's groups: one, or the Trainer's two (decay, no decay)")
    verb.add_argument("--weight-decay", type=float, help="of the first of the Trainer's groups (default: crossdock's --weight-decay)")
    args = parser.parse_args()
    try:
        model = build(args.model)
    except (OSError, ValueError, AttributeError) as error:
        sys.exit(f"crossdock_manifest: expected a model that transformers can build from {args.model}: {error}")
    groups = hf_trainer_groups(model, args.weight_decay) if args.param_groups == "hf-trainer" else None
    args.output.write_bytes(describe(model, groups=groups))
    print(f"{args.output}: {type(model).__name__}, {len(model.state_dict())} tensors")


if __name__ == "__main__":
    main()
