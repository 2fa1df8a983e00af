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

"""
What a bundle may name without a person having to look: each entry with its reason. All else is shown.

An entry is one exact name, but for `PACKAGES`: there it is each class that the package itself defines and exports,
since MONAI's are many; the ones among them that load, download or report to a server are in `EXCEPTIONS`.
"""

from __future__ import annotations

PACKAGES = {
    "monai.transforms": "a transform works on the items of a data set",
    "monai.losses": "a loss computes with tensors",
    "monai.metrics": "a metric computes with tensors",
    "monai.inferers": "an inferer calls the network",
    "monai.engines": "an engine runs what the config gives it",
    "monai.optimizers": "an optimizer computes with tensors",
    "monai.handlers": "a handler watches an engine; those that report to servers are excepted",
    "monai.networks.nets": "a network computes with tensors; those that download are excepted",
    "monai.networks.blocks": "a part of a network",
    "monai.networks.layers": "a part of a network",
    "monai.networks.schedulers": "noise of diffusion models",
    "torch.nn": "a part of a network",
    "torch.optim": "an optimizer computes with tensors",
    "torch.optim.lr_scheduler": "it computes learning rates",
    "monai_ext.adapters": "of this package",
    "monai_ext.data": "of this package",
    "monai_ext.handlers": "of this package",
    "monai_ext.inferers": "of this package",
    "monai_ext.losses": "of this package",
    "monai_ext.metrics": "of this package",
    "monai_ext.networks": "of this package; weights are read with weights_only",
    "monai_ext.optimizers": "of this package",
    "monai_ext.transforms": "of this package",
}

_DOWNLOADS = "It downloads weights."
_SERVER = "It reports to a server."
_BY_NAME = "It takes a class of another library by its name."

# Classes of PACKAGES, without a `d` or `Dict` at their end.
EXCEPTIONS = {
    "PerceptualLoss": "It runs code that torch.hub downloads.",
    "AHNet": _DOWNLOADS,
    "FCN": _DOWNLOADS,
    "MCFCN": _DOWNLOADS,
    "EfficientNetBN": _DOWNLOADS,
    "EfficientNetBNFeatures": _DOWNLOADS,
    "EfficientNetEncoder": _DOWNLOADS,
    "HoVerNet": "It downloads weights from an address that the config gives.",
    "MILModel": _DOWNLOADS,
    "NetAdapter": _BY_NAME,
    "ResNetEncoder": _DOWNLOADS,
    "ResNetFeatures": _DOWNLOADS,
    "BertPreTrainedModel": _DOWNLOADS,
    "Transchex": _DOWNLOADS,
    "FlexUNetEncoderRegister": _BY_NAME,
    "TorchVisionFCModel": _DOWNLOADS,
    "CuCIM": _BY_NAME,
    "RandCuCIM": _BY_NAME,
    "TorchIO": _BY_NAME,
    "RandTorchIO": _BY_NAME,
    "TorchVision": _BY_NAME,
    "RandTorchVision": _BY_NAME,
    "LearningRateFinder": "It loads states that it wrote to a folder.",
    "MLFlowHandler": _SERVER,
    "ClearMLHandler": _SERVER,
    "ClearMLImageHandler": _SERVER,
    "ClearMLStatsHandler": _SERVER,
    "TrtHandler": "It builds and loads TensorRT engines.",
}

_DATA = "it holds or reads images"
_READER = "it reads images"
_TENSOR = "it makes or computes with tensors"
_TYPE = "a type of numbers"
_RANDOM = "it draws indices"
_PROCESSES = "it joins the processes that the user started"

NAMES = {
    "copy.deepcopy": "it copies",
    "datetime.timedelta": "a span of time",
    "glob.glob": "it lists names of files",
    "ignite.distributed.get_rank": "the number of the process",
    "ignite.metrics.Accuracy": "a metric computes with tensors",
    "ignite.metrics.Loss": "a metric computes with tensors",
    "ignite.metrics.Precision": "a metric computes with tensors",
    "ignite.metrics.Recall": "a metric computes with tensors",
    "monai.data.ArrayDataset": _DATA,
    "monai.data.CacheDataset": _DATA,
    "monai.data.DataLoader": _DATA,
    "monai.data.Dataset": _DATA,
    "monai.data.DistributedSampler": _RANDOM,
    "monai.data.DistributedWeightedRandomSampler": _RANDOM,
    "monai.data.ITKReader": _READER,
    "monai.data.NibabelReader": _READER,
    "monai.data.NrrdReader": _READER,
    "monai.data.NumpyReader": "it reads images; arrays of objects in the bundle are refused here",
    "monai.data.PILReader": _READER,
    "monai.data.PydicomReader": _READER,
    "monai.data.SmartCacheDataset": _DATA,
    "monai.data.ThreadDataLoader": _DATA,
    "monai.data.WSIReader": _READER,
    "monai.data.ZipDataset": _DATA,
    "monai.data.decollate_batch": "it takes a batch apart",
    "monai.data.list_data_collate": "it makes a batch",
    "monai.data.load_decathlon_datalist": "it reads a list of images",
    "monai.data.pad_list_data_collate": "it makes a batch",
    "monai.data.partition_dataset": "it splits a list",
    "monai.handlers.from_engine": "it takes items of an engine's output",
    "monai.handlers.stopping_fn_from_loss": "it reads a loss",
    "monai.handlers.stopping_fn_from_metric": "it reads a metric",
    "monai.utils.set_determinism": "it sets seeds",
    "monai_ext.handlers.files.require_writable": "it tries whether a file may be written",
    "monai_ext.networks.save_base": "it writes a network to a file",
    "monai_ext.transforms.tissue_mask": "it finds the tissue of a slide",
    "numpy.arange": _TENSOR,
    "numpy.array": _TENSOR,
    "numpy.float32": _TYPE,
    "numpy.int64": _TYPE,
    "numpy.ones": _TENSOR,
    "numpy.pi": "a number",
    "numpy.uint16": _TYPE,
    "numpy.uint8": _TYPE,
    "numpy.zeros": _TENSOR,
    "torch.bfloat16": _TYPE,
    "torch.bool": _TYPE,
    "torch.cuda.is_available": "it asks for a GPU",
    "torch.cuda.set_device": "it chooses a GPU",
    "torch.device": "it names a device",
    "torch.distributed.destroy_process_group": _PROCESSES,
    "torch.distributed.get_rank": "the number of the process",
    "torch.distributed.init_process_group": _PROCESSES,
    "torch.float16": _TYPE,
    "torch.float32": _TYPE,
    "torch.int64": _TYPE,
    "torch.lerp": _TENSOR,
    "torch.long": _TYPE,
    "torch.nn.parallel.DistributedDataParallel": _PROCESSES,
    "torch.ones": _TENSOR,
    "torch.tensor": _TENSOR,
    "torch.uint8": _TYPE,
    "torch.utils.data.ConcatDataset": _DATA,
    "torch.utils.data.DataLoader": _DATA,
    "torch.utils.data.RandomSampler": _RANDOM,
    "torch.utils.data.Subset": _DATA,
    "torch.utils.data.WeightedRandomSampler": _RANDOM,
    "torch.zeros": _TENSOR,
}

# Importing them runs nothing but a library that is installed; what of them may be used is in NAMES and PACKAGES.
MODULES = {
    *("copy", "datetime", "glob", "ignite", "ignite.distributed", "ignite.metrics", "math", "monai", "monai_ext"),
    *("numpy", "os", "torch", "torch.distributed", *PACKAGES),
}

# Names that every expression of MONAI has.
GLOBALS = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy"}

# They compute, and take no names of other things.
BUILTINS = {
    *("abs", "all", "any", "bool", "dict", "enumerate", "float", "int", "isinstance", "len", "list", "max", "min"),
    *("range", "reversed", "round", "set", "sorted", "str", "sum", "tuple", "zip"),
}

# Attributes of components and values: a name stands here if it is harmless on whatever the names above give.
ATTRIBUTES = {
    # of networks, optimizers and engines
    *("attach", "device", "load_state_dict", "parameters", "requires_grad", "run", "set_trainer", "state_dict", "to"),
    # of tensors and arrays
    *("dtype", "float", "item", "long", "max", "mean", "min", "ndim", "shape", "squeeze", "sum", "type", "unsqueeze"),
    # of dicts
    *("items", "keys", "values"),
    # of this package's data sets and lists
    *("datalist", "finish", "masks", "test", "training", "validation"),
    # parts of PretrainingData
    *("dsb2018_stained", "dsb2018_stained_validation", "hrf", "idrid_disc", "idrid_disc_validation", "msd_spleen"),
    "totalsegmentator_ct",
}

# Whole expressions of our own bundles that hold a loop, a function with calls, or a name that is not allowed.
EXPRESSIONS = {
    "[p for p in @network.parameters() if p.requires_grad]": "the weights that are trained",
    "[@sources[name] for name in @shares]": "the data sets that are mixed",
    "[@shares[name] / len(@sources[name]) for name in @shares for _ in range(len(@sources[name]))]": (
        "how often each image is drawn"
    ),
    "lambda batch: monai.data.list_data_collate([i for item in batch for i in (item if isinstance(item, list) else "
    "[item])])": "it makes a batch of lists",
    "lambda item: {'points': torch.zeros(0, 2), 'point_labels': torch.zeros(0), **item}": "an item without clicks",
    "lambda items: ([m[None] for i in items for m in i['pred'][0]], [m[None] for i in items for m in i['label']])": (
        "the masks of a batch, one by one"
    ),
    "lambda start, end: {k: torch.lerp(start[k], v, @second_share) if v.is_floating_point() else v for k, v in "
    "end.items()}": "it averages weights",
    "lambda x: x.mean(0, keepdim=True).repeat(3, 1, 1)": "it makes a picture grey",
    "torch.device('cuda', int(os.environ['LOCAL_RANK'])) if torch.cuda.is_available() else torch.device('cpu')": (
        "the GPU of the process, as torchrun numbers them"
    ),
    "@network.load_state_dict(torch.load(@best.path, map_location=@device)) if idist.get_rank() == 0 else None": (
        "it reads what the training wrote; torch reads weights only, and other files of the bundle are refused here"
    ),
    "@network.load_state_dict(@average(@start, torch.load(@best.path, map_location=@device))) if idist.get_rank() == 0 "
    "else None": (
        "it reads what the training wrote; torch reads weights only, and other files of the bundle are refused here"
    ),
}

# Arguments that MONAI's loaders and inferers take for the name of a class, and the names that stand for MONAI's own.
CLASS_ARGUMENTS = {"reader", "writer", "merger_cls"}
CLASS_WORDS = {
    *("itkreader", "nibabelreader", "nrrdreader", "numpyreader", "pilreader", "pydicomreader"),
    *("itkwriter", "nibabelwriter", "pilwriter", "avgmerger"),
}
# They take such a name in any place, so an expression may not call them.
TARGETS_ONLY = {"LoadImage", "SaveImage", "PatchInferer"}

# Where the zoo's configs say that data lie; the user gives another folder.
DATA_ROOT = "/workspace/data/"
HOSTS = {"dl.fbaipublicfiles.com": "the official SAM 2.1 checkpoints"}
HASHES = {"sha256", "sha512"}

# Globals that `torch.load(weights_only=True)` takes, and how older files write them.
WEIGHTS = {
    *("collections.OrderedDict", "collections.Counter", "_codecs.encode", "torch.nn.parameter.Parameter"),
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("bytearray", "complex", "set")),
    *("torch.serialization._get_layout", "torch.Size", "torch.Tensor", "torch.device"),
    *("torch.storage.TypedStorage", "torch.storage.UntypedStorage", "torch._tensor._rebuild_from_type_v2"),
    *(
        f"torch._utils._rebuild_{name}"
        for name in ("parameter", "parameter_with_state", "qtensor", "tensor", "tensor_v2", "tensor_v3")
    ),
    *(f"torch._utils._rebuild_{name}" for name in ("sparse_tensor", "meta_tensor_no_storage", "nested_tensor")),
    *(
        f"torch.{name}Storage"
        for name in ("BFloat16", "Bool", "Byte", "Char", "ComplexDouble", "ComplexFloat", "Double", "Float", "Half")
    ),
    *(f"torch.{name}Storage" for name in ("Int", "Long", "Short", "QInt32", "QInt8", "QUInt8")),
    *(f"torch.{name}" for name in ("bfloat16", "bool", "complex64", "complex128", "float16", "float32", "float64")),
    *(f"torch.{name}" for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")),
}
# Operations of a pickle that it takes.
WEIGHTS_OPERATIONS = {
    *("APPEND", "APPENDS", "BINFLOAT", "BINGET", "BININT", "BININT1", "BININT2", "BINPERSID", "BINPUT", "BINUNICODE"),
    *("BUILD", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET", "EMPTY_TUPLE", "GLOBAL", "LONG1", "LONG_BINGET"),
    *("LONG_BINPUT", "MARK", "NEWFALSE", "NEWOBJ", "NEWTRUE", "NONE", "PROTO", "REDUCE", "SETITEM", "SETITEMS"),
    *("SHORT_BINSTRING", "STOP", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
}

# Classes of logging.conf that write to the terminal only.
LOGGING_CLASSES = {
    *("StreamHandler", "NullHandler", "Formatter"),
    *("logging.StreamHandler", "logging.NullHandler", "logging.Formatter"),
}
