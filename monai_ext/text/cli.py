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

from monai_ext.text.clip import CLIPTextEncoder
from monai_ext.text.embeddings import add_label_embeddings
from monai_ext.text.encoder import LabelNameEncoder
from monai_ext.text.sentence import SentenceEncoder


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``labels`` to the parser of ``python -m monai_ext``."""
    parser = subparsers.add_parser(
        "labels",
        help="make the embeddings of label names that serve as prompts",
        description="Write the embeddings of label NAMEs into FILE, beside those that it holds. The encoder runs once, "
        "here; training and inference only read the file.",
    )
    parser.add_argument("file", metavar="FILE", help="a .safetensors file, made if missing")
    parser.add_argument("names", metavar="NAME", nargs="+", help="a label's name, such as 'gall bladder'")
    parser.add_argument(
        "--encoder",
        choices=("clip", "sentence"),
        default="clip",
        help="CLIP's text encoder (default), or any model of sentence-transformers, given by --model",
    )
    parser.add_argument(
        "--model",
        metavar="M",
        help="a folder, or a name of the Hugging Face hub (default for clip: openai/clip-vit-base-patch32)",
    )
    parser.add_argument(
        "--name",
        metavar="N",
        help="what FILE remembers of the encoder, since vectors of different ones do not mix (default: M, unless that "
        "is a folder)",
    )
    parser.set_defaults(run=_labels)


def _labels(args: argparse.Namespace) -> int:
    new = add_label_embeddings(args.file, args.names, _encoder(args.encoder, args.model, args.name))
    print(f"{args.file}: {', '.join(new)} added." if new else f"{args.file} has them all already.")
    return 0


def _encoder(kind: str, model: str | None, name: str | None) -> LabelNameEncoder:
    if kind == "clip":
        return CLIPTextEncoder(name=name) if model is None else CLIPTextEncoder(model=model, name=name)
    if model is None:
        raise ValueError("--encoder sentence needs --model: a folder, or a name of the Hugging Face hub.")
    return SentenceEncoder(model=model, name=name)
