# SPDX-License-Identifier: Apache-2.0
"""crossdock_manifest with manifests and files that lie: one clear sentence, exit code 1, nothing written, never a traceback."""
import json
import os
import random
import re

import pytest

from recipes import PLAIN
from test_manifest_package import EVERY_KIND, cm, encoded, run


@pytest.fixture(scope="module")
def forms(crossdock, source, tmp_path_factory):
    """The bytes of a real manifest in both forms."""
    folder = tmp_path_factory.mktemp("forms")
    for name in ("m.pb", "m.json"):
        crossdock("inspect", source(PLAIN), "--manifest", folder / name)
    return (folder / "m.pb").read_bytes(), (folder / "m.json").read_bytes()


def use(path, data):
    """Everything that the package does with a manifest; how often it refused."""
    path.write_bytes(data)
    refusals = 0
    try:
        m = cm.load(path)
    except cm.ManifestError as error:
        assert "\n" not in str(error) and str(error).startswith(f"{path}: ") and "expected" in str(error)
        return 1
    for call in (lambda: cm.summary(m, tensors=True), lambda: cm.parameters(m), lambda: cm.diff(m, m), *(lambda n=n: m.numpy(n) for n in m.names[:3])):
        try:
            call()
        except cm.ManifestError:
            refusals += 1
    return refusals


def test_cut_off_anywhere(forms, tmp_path):
    data = forms[0]
    assert sum(use(tmp_path / "m.pb", data[:n]) > 0 for n in range(len(data))) > 0.9 * len(data)
    text = forms[1]
    assert all(use(tmp_path / "m.json", text[:n]) for n in range(0, len(text) - 2, 7))


@pytest.mark.parametrize("form", ["pb", "json"])
def test_damaged_anywhere(forms, tmp_path, form):
    data = forms[0] if form == "pb" else forms[1]
    every = encoded(EVERY_KIND)
    chance, refused = random.Random(5), 0
    for i in range(3000):
        broken = bytearray(every if form == "pb" and i % 2 else data)
        for _ in range(chance.randint(1, 4)):
            broken[chance.randrange(len(broken))] = chance.choice([0, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        refused += bool(use(tmp_path / f"m.{form}", bytes(broken)))
    assert refused > 500


def broken(tmp_path, change, original):
    """A manifest in JSON with a change."""
    m = json.loads(original)
    change(m)
    (tmp_path / "m.json").write_text(json.dumps(m))
    return tmp_path / "m.json"


def set_file(key, value):
    return lambda m: m["source"]["files"][0].update({key: value})


def set_tensor(key, value):
    return lambda m: m["tensors"][0].update({key: value})


@pytest.mark.parametrize("change, message", [
    (set_file("name", "../model.safetensors"), 'expected a relative name of a file without "..", found "../model.safetensors"'),
    (set_file("name", "/etc/passwd"), "expected a relative name"),
    (set_file("name", "a//b"), "expected a relative name"),
    (set_file("name", "\x1b[31m/.."), r'found "\x1b[31m/.."'),
    (set_file("size", "5"), "expected bytes inside model.safetensors of 5 bytes, found"),
    (set_file("size", -1), "expected an integer of uint64 as the manifest's source.files[0].size, found -1"),
    (set_file("size", 2**64), "expected an integer of uint64"),
    (set_tensor("extents", [{"offset": str(2**64 - 1), "length": str(2**64 - 1)}]), "expected bytes inside model.safetensors"),
    (set_tensor("extents", [{"file": 3}]), "expected one of 1 files, found number 3"),
    (set_tensor("dtype", "F13"), 'expected a known DType as the manifest\'s tensors[0].dtype, found "F13"'),
    (set_tensor("dtype", 99), "expected a known DType, found number 99"),
    (set_tensor("dtype", 0), "expected an element type, found none"),
    (set_tensor("shape", ["4294967296"] * 4), "expected a shape of at most 2^56 elements"),
    (set_tensor("shape", ["0", str(2**60)]), "expected a shape of at most 2^56 elements"),
    (set_tensor("shape", ["1"] * 65), "expected at most 64 dimensions"),
    (set_tensor("shape", ["1000000"]), "expected 2000000 bytes of values, found"),
    (set_tensor("strides", ["-1", "1"]), "expected 2 strides of 0 or more"),
    (lambda m: m["tensors"][0].update(strides=["35", "1"], storage_elements="9065", storage_offset="1"), "expected a view inside its storage of 9065 elements, found element 9065"),
    (lambda m: m["tensors"][0].update(strides=["35", "1"], storage_elements="99999999"), "expected a storage inside its"),
    (lambda m: m["tensors"].append(m["tensors"][0]), "expected each tensor once"),
    (lambda m: m.update(alias_groups=[{"tensors": ["0", "99"]}]), "expected a tensor of an alias group below 42, found 99"),
    (lambda m: m.update(schema_version=2), "expected manifest version 1, found 2"),
    (lambda m: m.update(tensors={}), "expected a list as the manifest's tensors, found {}"),
    (lambda m: m.pop("schema_version"), "found other JSON without its schema_version"),
    (lambda m: m["aux_files"][0].update(bytes="%"), "expected bytes in base64"),
])
def test_lies_of_a_manifest(forms, tmp_path, change, message):
    path = broken(tmp_path, change, forms[1])
    done = run("show", path, code=1)
    assert message in done.stderr and done.stderr.count("\n") == 1 and not done.stdout


@pytest.mark.parametrize("change, message", [
    (set_file("path", "/tmp/../etc/passwd"), 'expected an absolute path without "..", found "/tmp/../etc/passwd"'),
    (set_file("path", "model.safetensors"), "expected an absolute path"),
    (set_file("path", "/dev/zero"), "at /dev/zero, found something else"),
    (set_file("path", "/etc/passwd"), "at /etc/passwd, found one of"),
    (set_tensor("expression", "concat(0, a)"), "found them to be made of others, concat(0, a)"),
    (set_tensor("expression", "strided([35, 1], 9, lm_head.weight)"), "expected a view inside its storage of 9065 elements, found element 9073"),
    (set_tensor("expression", "strided([1], lm_head.weight)"), "expected 2 strides of 0 or more, found [1]"),
    (set_tensor("expression", "strided([35, 1], other)"), "found them to be made of others"),
    (set_tensor("encoding", "deflate"), 'expected plain elements, found the encoding "deflate"'),
    (set_tensor("extents", []), "expected the place of its bytes, found none"),
    (set_file("path", "/nowhere\n/x"), r"expected the source's file at /nowhere\n/x, found that it cannot be read"),
])
def test_lies_about_values(forms, tmp_path, change, message):
    m = cm.load(broken(tmp_path, change, forms[1]))
    with pytest.raises(cm.ManifestError, match=re.escape(message)) as error:
        m.numpy(m.names[0])
    assert "\n" not in str(error.value)


def test_a_pipe_in_the_file_s_place_does_not_block(forms, tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    m = cm.load(broken(tmp_path, set_file("path", ""), forms[1]))
    with pytest.raises(cm.ManifestError, match="found something else"):
        m.numpy(m.names[0])


def test_a_source_that_was_cut(forms, source, tmp_path):
    whole = (source(PLAIN) / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-1])
    m = cm.load(broken(tmp_path, set_file("path", ""), forms[1]))
    with pytest.raises(cm.ManifestError, match=f"expected a file of {len(whole)} bytes at .*, found one of {len(whole) - 1} bytes"):
        m.numpy(m.names[0])


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"schema_version": ' + "9" * 5000 + "}", '{"schema_version": 1, "x": NaN',
                                  '{"schema_version": 1, "source": {"config": ' + '{"list_value": {"values": [' * 400 + "{}" + "]}}" * 400 + "}}"],
                         ids=["empty", "open", "deep list", "long number", "cut", "deep values"])
def test_json_that_is_none(tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    done = run("plan", tmp_path / "m.json", "--picture", tmp_path / "p.svg", code=1)
    assert done.stderr.startswith("crossdock_manifest: ") and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"], "nothing is written"


def test_wrong_use(forms, tmp_path):
    (tmp_path / "m.pb").write_bytes(forms[0])
    for flags, message in [(["--world-size", "0"], "numbers of GPUs such as 1,8,64, found 0"), (["--world-size", "a"], "found a"),
                           (["--gpu-memory", "80 apples"], "a GPU's memory such as 80GiB"), (["--gpu-memory", "nan"], "a GPU's memory"),
                           (["--frozen", "("], "expected a regular expression of names, found ("), (["--picture", "p.png"], "expected a file FILE.svg"),
                           (["--gpus-per-node", "0"], "expected a number of GPUs of a node"),
                           (["--picture", tmp_path / "no/p.svg"], "expected to write the picture to")]:
        done = run("plan", tmp_path / "m.pb", *flags, code=1)
        assert message in done.stderr and done.stderr.count("\n") == 1
    assert "expected a manifest at" in run("show", tmp_path / "none.pb", code=1).stderr


def test_names_do_not_reach_the_picture_or_the_terminal(tmp_path):
    """Of a class or a file that is called as markup, or moves the cursor."""
    (tmp_path / "m.pb").write_bytes(encoded('schema_version: 1 source { config { map_value { entries { key: "architectures" value { list_value { values { string_value: '
                                            r'"</text><script>\033[2J" } } } } } } } tensors { name: "w\033[2J" dtype: F32 shape: 3 }'))
    page = run("plan", tmp_path / "m.pb", "--picture", tmp_path / "p.svg").stdout + run("show", tmp_path / "m.pb", "--tensors").stdout
    picture = (tmp_path / "p.svg").read_text()
    assert "\x1b" not in page + picture and "<script" not in picture and "&lt;script" in picture
