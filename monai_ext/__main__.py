# Copyright (c) monai_ext contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.


from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from monai_ext.data import cli as data_cli
from monai_ext.demo import cli as demo_cli
from monai_ext.label import cli as label_cli
from monai_ext.networks import cli as weights_cli
from monai_ext.share import check_cli, inspect_cli, pack_cli, publish_cli
from monai_ext.text import cli as labels_cli

# A module with `add_arguments(subparsers)` brings commands; each parser sets `run`, from its arguments to an exit code.
COMMANDS = (weights_cli, labels_cli, data_cli, inspect_cli, check_cli, pack_cli, publish_cli, demo_cli, label_cli)


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one command; what goes wrong with the user's files or network is told in one sentence, without a traceback.

    Args:
        argv: the words after ``python -m monai_ext``; None takes those of the process.

    Returns:
        Exit code: 0 done, 1 failed, 2 wrong usage, 130 stopped by the user.
    """
    parser = argparse.ArgumentParser(
        prog="python -m monai_ext", description="Tools around the bundles that fine-tune SAM 2.1 on medical images."
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_arguments(subparsers)
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
