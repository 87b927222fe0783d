# SPDX-License-Identifier: Apache-2.0
"""Makes universal checkpoints with DeepSpeed's own ds_to_universal.py, many in one process.

    universal_job.py CASES.json

A case is [a checkpoint's folder with `latest`, where to]. Makes TO/TAG and TO/latest_universal.
"""
import json
import sys
from argparse import Namespace
from pathlib import Path

from deepspeed.checkpoint import ds_to_universal


def main():
    for native, out in json.loads(Path(sys.argv[1]).read_text()):
        tag = (Path(native) / "latest").read_text()
        (Path(out) / tag).mkdir(parents=True)
        ds_to_universal.main(Namespace(input_folder=str(Path(native) / tag), output_folder=str(Path(out) / tag), num_extract_workers=1,
                                       num_merge_workers=1, keep_temp_folder=False, strict=True, inject_missing_state=True))


if __name__ == "__main__":
    main()
