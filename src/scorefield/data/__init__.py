"""Data: from files, arrays and datasets to batches in data units.

A reader finds the content of a path (`Images` or `Arrays`, by split); `rows_of` turns it into examples, channel-first
and resized, decoded one batch at a time; `open_data` adds units (`DataSpec`), labels and a held-out part. Examples stay
in data units: x of shape (B, *shape), uint8 grey levels for 8-bit data, float32 otherwise. `DataSpec.to_model` takes
them to the units in which noise levels are given, bounded data by their range and unbounded data by the mean and
deviation of the training split. Whatever could mean two things (colour modes, channel order, ranges of whole numbers)
is an error that names the field to set.

The preprocessing of the published runs is expressed in a few of these fields: a centred crop, an antialiased resize by
the release's filter, a border, stacks of examples along the channels, flips. `DataSource` lists them in a table, and
says where a release keeps fractions of grey levels that are rounded here. TFRecords are read without TensorFlow and
CIFAR's binary batches as they are; LMDB needs the package lmdb. Nothing is unpickled: CIFAR's Python version is
refused.

The order of examples is a pure function. With n examples, batches of B and a seed, the training stream is the
concatenation of the epochs' permutations pi_e, where pi_e sorts the hashes h(seed, e, i); step k is its slice [k B, (k
+ 1) B); rank r of W takes the slice's r-th contiguous part; example i is mirrored in epoch e when the top bit of
h'(seed, e, i) is set. So `Batches.at(k)` needs no state, and the position of a run is its step number.

| what | where |
| --- | --- |
| bundled digits | `DataSource("digits")` |
| image files, class and split folders | `DataSource("photos/")` |
| .npy, .npz, .pt | `DataSource("cube.npy")` |
| IDX (MNIST, Fashion-MNIST) | `DataSource("folder/")` or one `*-images-idx3-ubyte[.gz]` |
| CIFAR-10 and -100, binary version | `DataSource("cifar-10-batches-bin/")` or one of its .bin files |
| LMDB (LSUN, FFHQ of NCSNv2) | `DataSource("bedroom_train_lmdb/")`, or the folder above with `key="bedroom"` |
| TFRecords (ProgressiveGAN's, encoded images) | `DataSource("folder/", size=256)` or one file |
| CelebA | `DataSource("celeba/")`, the folder of `img_align_celeba` and its lists |
| image parquet (Hugging Face) | `DataSource("folder/")` or one file |
| a map-style dataset | `DataSource("package.module:make_dataset")`, or `open_data(DataSource(), dataset)` |

    source      `DataSource`, the fields of an experiment that describe its data
    opening     from a `DataSource` to the splits of training and evaluation
    readers     one module for each format
    images      decoding, cropping and resizing of images
    rows        examples by index, with bounded memory
    split       examples of one split in batches, with conditions and a content hash
    order       the order of examples and flips, as pure functions
    loader      batches read ahead by one thread
    survey      statistics of examples, and the DataSpec that follows
    inspection  `scorefield data inspect`
    stacking    stacked examples
"""

from scorefield.data import readers
from scorefield.data.images import frame_geometry
from scorefield.data.inspection import Inspection, inspect, suggest_recipe
from scorefield.data.loader import Loader
from scorefield.data.opening import open_data, read_contents
from scorefield.data.order import Batches, BatchIndices, epoch_order
from scorefield.data.readers.arrays import read_array
from scorefield.data.readers.cifar import read_cifar
from scorefield.data.readers.content import Arrays, Content, Images
from scorefield.data.readers.crc32c import crc32c
from scorefield.data.readers.digits import read_digits
from scorefield.data.readers.folder import read_folder
from scorefield.data.readers.idx import read_idx, read_idx_file
from scorefield.data.readers.lmdb_files import read_lmdb
from scorefield.data.readers.objects import import_dataset, read_object
from scorefield.data.readers.parquet import read_parquet
from scorefield.data.readers.table import READERS, Reader, reader
from scorefield.data.readers.tfrecord import read_tfrecord
from scorefield.data.rows import Rows, rows_of
from scorefield.data.source import DataError, DataSource
from scorefield.data.split import Data, Split
from scorefield.data.stacking import Stacking
from scorefield.data.survey import Survey, survey

__all__ = [
    "Arrays",
    "BatchIndices",
    "Batches",
    "Content",
    "Data",
    "DataError",
    "DataSource",
    "Images",
    "Inspection",
    "Loader",
    "READERS",
    "Reader",
    "Rows",
    "Split",
    "Stacking",
    "Survey",
    "crc32c",
    "epoch_order",
    "frame_geometry",
    "import_dataset",
    "inspect",
    "open_data",
    "read_array",
    "reader",
    "readers",
    "read_cifar",
    "read_contents",
    "read_digits",
    "read_folder",
    "read_idx",
    "read_idx_file",
    "read_lmdb",
    "read_object",
    "read_parquet",
    "read_tfrecord",
    "rows_of",
    "suggest_recipe",
    "survey",
]
