"""What local hosts are made from, without making any: specification, prerequisites, inventory, interpreter."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from raftbed.errors import HostError, UsageError
from raftbed.hosts import host_tree, interpreter, labs, make_pool, prerequisites
from raftbed.hosts.host_tree import HostSpecification, LabSpecification
from raftbed.hosts.inventory import Inventory, InventoryEntry
from raftbed.hosts.local import LocalPool


def test_unknown_kind_of_host_names_those_there_are(tmp_path):
    with pytest.raises(UsageError, match="local"):
        make_pool("mainframe", ["n1"], tmp_path)


@pytest.mark.parametrize("names", [[], ["n1", "n1"], ["a b"], ["n/1"], [""], ["ü"], ["x" * 64]])
def test_bad_names_are_refused(names, tmp_path):
    with pytest.raises(UsageError):
        LocalPool(names, tmp_path)


# -- prerequisites --------------------------------------------------------------------------------------------------


def proc_with(tmp_path: Path, **settings: str) -> Path:
    """A /proc in which everything is allowed but for `settings` ("user__max_user_namespaces")."""
    for name, value in {"user__max_user_namespaces": "1000", **settings}.items():
        path = tmp_path / "sys" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/user").touch()
    (tmp_path / "self/mountinfo").write_text("21 1 254:0 / / rw - ext4 /dev/vda rw\n")
    return tmp_path


@pytest.mark.parametrize(
    ("setting", "value", "word"),
    [
        ("kernel__apparmor_restrict_unprivileged_userns", "1", "AppArmor"),
        ("kernel__unprivileged_userns_clone", "0", "closed to ordinary users"),
        ("user__max_user_namespaces", "0", "switched off"),
    ],
)
def test_forbidden_user_namespaces_are_explained_with_the_command_that_allows_them(
    tmp_path, monkeypatch, setting, value, word
):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    obstacle = prerequisites.namespace_obstacle(proc_with(tmp_path, **{setting: value}))
    assert word in obstacle.reason
    assert f"sysctl -w {setting.replace('__', '.')}=" in obstacle.remedy


def test_a_chroot_is_recognized(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    proc = proc_with(tmp_path)
    assert prerequisites.namespace_obstacle(proc) is None
    (proc / "self/mountinfo").write_text("22 21 0:20 / /proc rw - proc proc rw\n")
    assert "chroot" in prerequisites.namespace_obstacle(proc).reason


def test_root_without_its_capabilities_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    proc = proc_with(tmp_path)
    (proc / "self/status").write_text("Name:\tpython\nCapEff:\t00000000a80425fb\n")
    assert "--privileged" in prerequisites.namespace_obstacle(proc).remedy
    (proc / "self/status").write_text("Name:\tpython\nCapEff:\t000001ffffffffff\n")
    assert prerequisites.namespace_obstacle(proc) is None


def test_missing_programs_are_named_with_their_packages(monkeypatch):
    monkeypatch.setattr(prerequisites, "find_program", lambda name: "")
    with pytest.raises(HostError, match=r"ip and unshare.*apt-get install iproute2 util-linux"):
        prerequisites.require_programs()


# -- interpreter ----------------------------------------------------------------------------------------------------


def test_every_step_of_a_chain_of_links_is_followed(tmp_path):
    (tmp_path / "base/bin").mkdir(parents=True)
    (tmp_path / "base/bin/python3.11").touch()
    (tmp_path / "middle").symlink_to("base")
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/python").symlink_to("python3")
    (tmp_path / "venv/bin/python3").symlink_to("../../middle/bin/python3.11")
    chain = interpreter.link_chain(str(tmp_path / "venv/bin/python"))
    assert chain == [str(tmp_path / name) for name in ("venv/bin/python", "venv/bin/python3", "middle/bin/python3.11")]


def test_directories_within_others_are_left_out(tmp_path):
    for name in ("a/b", "ab", "c"):
        (tmp_path / name).mkdir(parents=True)
    listed = [str(tmp_path / name) for name in ("a/b", "ab", "a", "c/../c", "missing")]
    assert interpreter.outermost(listed) == tuple(str(tmp_path / name) for name in ("a", "ab", "c"))


def test_the_checkout_around_an_editable_install_is_not_shown_to_hosts():
    repository = str(Path(__file__).resolve().parents[2])
    assert repository not in interpreter.interpreter_directories()


# -- inventory ------------------------------------------------------------------------------------------------------


def test_an_inventory_survives_being_saved(tmp_path):
    entries = {name: InventoryEntry(name, f"10.0.0.{number}", tmp_path / "key", "ssh-ed25519 AAAA", home="/h")
               for number, name in enumerate(["n1", "n2", "n10"], start=1)}  # fmt: skip
    saved = Inventory(entries)
    saved.save(tmp_path / "inventory.json")
    assert stat.S_IMODE((tmp_path / "inventory.json").stat().st_mode) == 0o600
    read = Inventory.load(tmp_path / "inventory.json")
    assert list(read) == ["n1", "n2", "n10"]
    assert dict(read) == entries


def test_an_unknown_host_is_named_with_those_there_are(tmp_path):
    inventory = Inventory({"n1": InventoryEntry("n1", "10.0.0.1", tmp_path / "key", "ssh-ed25519 AAAA")})
    with pytest.raises(HostError, match=r"n7: there is no such host\. Hosts of this run: n1"):
        inventory.entry("n7")


@pytest.mark.parametrize("content", ["", "{}", '{"hosts": [{"surprise": 1}]}', '{"hosts": 3}'])
def test_a_malformed_inventory_is_named(tmp_path, content):
    path = tmp_path / "inventory.json"
    path.write_text(content)
    with pytest.raises(HostError, match=r"inventory\.json"):
        Inventory.load(path)


# -- disk -----------------------------------------------------------------------------------------------------------


def test_the_disk_of_a_host_has_accounts_of_its_own_and_links_to_the_rest_of_etc(tmp_path):
    host = HostSpecification("n1", "10.0.0.1", "02:52:42:00:00:01", "v1", "PRIVATE")
    lab = LabSpecification(str(tmp_path), (host,), "10.0.255.254", 16, "ssh-ed25519 AAAA", "", (), True, True)
    host_tree.make_disk(lab, host)
    etc = tmp_path / "hosts/n1/disk/etc"
    assert (etc / "hostname").read_text() == "n1\n"
    assert "10.0.0.1 n1" in (etc / "hosts").read_text()
    assert (etc / "passwd").read_text().startswith("root:x:0:0:root:/root:/bin/sh\n")
    for name in ("shadow", "ssh/ssh_host_ed25519_key"):
        assert stat.S_IMODE((etc / name).stat().st_mode) == 0o600
    assert not (etc / "passwd").is_symlink()
    if Path("/etc/ld.so.cache").exists():
        assert os.readlink(etc / "ld.so.cache") == "/.machine/etc/ld.so.cache"


# -- labs -----------------------------------------------------------------------------------------------------------


def test_a_process_is_known_by_pid_and_start_time():
    assert labs.start_time(os.getpid()) > 0
    assert labs.start_time(2**22 + 1) == 0


def lab_in(store: Path, content: str | None = None) -> Path:
    """A directory like that of a lab which somebody keeps; the process of the tests holds it."""
    lab = store / "smoke-test/20260101T000000.000/lab"
    lab.mkdir(parents=True)
    record = {
        **labs.controller_record(),
        "kept": True,
        "holder": os.getpid(),
        "holder_start": labs.start_time(os.getpid()),
    }
    record["lab"] = {"hosts": [{"name": "n1"}]}
    (lab / "lab.json").write_text(json.dumps(record) if content is None else content)
    return lab


def test_a_lab_that_is_kept_is_found_in_the_store(tmp_path):
    lab = lab_in(tmp_path)
    (found,) = (found for found in labs.list_labs(tmp_path) if found.directory == lab)
    assert (found.state, found.hosts, found.lab) == ("kept", ("n1",), os.getpid())


def test_a_record_that_another_user_wrote_is_not_believed(tmp_path, monkeypatch):
    """It could name any process as the one to be ended, for root to find in a store that others can write."""
    lab = lab_in(tmp_path)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert labs.lab_info(lab) is None
    assert lab not in [found.directory for found in labs.list_labs(tmp_path, live=True)]


def test_a_record_behind_a_link_is_not_believed(tmp_path):
    lab = lab_in(tmp_path)
    (lab / "lab.json").rename(lab / "elsewhere.json")
    (lab / "lab.json").symlink_to("elsewhere.json")
    assert labs.lab_info(lab) is None


@pytest.mark.parametrize(
    "content",
    ["", "[]", "null", "\xff", "[" * 100_000, '{"lab": {}}', '{"lab": 1, "kept": true}',
     '{"lab": {"hosts": [1]}, "kept": 0, "controller": 1, "created": 0}',
     '{"lab": {"hosts": []}, "kept": 0, "controller": "one", "created": 0}',
     '{"lab": {"hosts": []}, "kept": 0, "controller": 1e999, "created": 0}'],
)  # fmt: skip
def test_a_malformed_record_is_no_lab_and_no_obstacle(tmp_path, content):
    lab = lab_in(tmp_path, content)
    assert lab not in [found.directory for found in labs.list_labs(tmp_path, live=True)]


def test_a_registry_that_others_can_write_is_not_trusted(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "raftbed").mkdir()
    (tmp_path / "raftbed").chmod(0o777)
    with pytest.raises(HostError, match="not a private directory"):
        labs.register(tmp_path / "lab")


def test_the_registry_goes_away_with_its_last_lab(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in ("one", "two"):
        labs.register(tmp_path / name)
    labs.unregister(tmp_path / "one")
    assert (tmp_path / "raftbed").is_dir()
    labs.unregister(tmp_path / "two")
    assert not (tmp_path / "raftbed").exists()
