"""Readers: the content of a path as encoded images or as an array, by split; nothing is decoded or converted here.

table       the readers by name, and the decorator that adds one
content     what a reader returns: encoded images or an array, with labels
labels      labels as class numbers or as measured numbers
folder      image files, in split and class folders
arrays      .npy, .npz and .pt
parquet     image parquet of Hugging Face
idx         MNIST and Fashion-MNIST
cifar       CIFAR-10 and -100, binary version
celeba      the lists of CelebA
lmdb_files  LMDB of LSUN and of NCSNv2's FFHQ
tfrecord    TFRecords of images; crc32c, their checksum
objects     map-style datasets
digits      the bundled digits
"""

from __future__ import annotations

from scorefield.data.readers import (
    arrays,
    celeba,
    cifar,
    content,
    crc32c,
    digits,
    folder,
    idx,
    labels,
    lmdb_files,
    objects,
    parquet,
    table,
    tfrecord,
)
from scorefield.data.readers.arrays import read_array
from scorefield.data.readers.cifar import read_cifar
from scorefield.data.readers.content import Arrays, Content, Images
from scorefield.data.readers.digits import read_digits
from scorefield.data.readers.folder import read_folder
from scorefield.data.readers.idx import read_idx, read_idx_file
from scorefield.data.readers.lmdb_files import read_lmdb
from scorefield.data.readers.objects import import_dataset, read_object
from scorefield.data.readers.parquet import read_parquet
from scorefield.data.readers.tfrecord import read_tfrecord

__all__ = [
    "Arrays",
    "Content",
    "Images",
    "arrays",
    "celeba",
    "cifar",
    "content",
    "crc32c",
    "digits",
    "folder",
    "idx",
    "import_dataset",
    "labels",
    "lmdb_files",
    "objects",
    "parquet",
    "table",
    "read_array",
    "read_cifar",
    "read_digits",
    "read_folder",
    "read_idx",
    "read_idx_file",
    "read_lmdb",
    "read_object",
    "read_parquet",
    "read_tfrecord",
    "tfrecord",
]
