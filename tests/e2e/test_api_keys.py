"""The file of API keys changes under a running coordinator: keys come and go without a restart, and a broken file changes
nothing. Each way in which files are changed: in place, by a rename over it, and by the symlink of a Kubernetes Secret."""

import os
import signal
import time

from conftest import eventually, start_service

FOLLOWED_WITHIN_SECONDS = 5  # a look each second, on a busy machine


def status(service, key):
    return service.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status


def follows(service, comes, goes):
    eventually(lambda: status(service, comes) == 200, FOLLOWED_WITHIN_SECONDS, f"{comes} is accepted")
    assert status(service, goes) == 401, "the key that was taken out is refused"


def mount(folder, version, keys):
    """As the kubelet does it: a folder a version, `..data` swapped by a rename, the file a link through it."""
    (folder / version).mkdir()
    (folder / version / "keys").write_text(keys)
    os.symlink(version, folder / "..data_tmp")
    os.rename(folder / "..data_tmp", folder / "..data")


def test_keys_follow_their_file(tmp_path, capfd):
    mount(tmp_path, "..1", "first\n")
    (tmp_path / "keys").symlink_to("..data/keys")
    keys = tmp_path / "keys"
    service = start_service("--api-keys", str(keys), workers=1)
    try:
        assert status(service, "first") == 200 and status(service, "second") == 401
        mount(tmp_path, "..2", "second\n")
        follows(service, "second", "first")

        (tmp_path / "..2" / "keys").write_text("third\n")
        follows(service, "third", "second")

        # Broken in three ways: no key, a key that is too long, no file. Whoever had a key keeps it.
        for broken in ("# nothing\n", "x" * 600 + "\n", None):
            if broken is None:
                keys.unlink()
            else:
                keys.write_text(broken)
            time.sleep(2.5)
            assert status(service, "third") == 200 and status(service, "first") == 401
        said = capfd.readouterr().err
        assert said.count("the API keys stay as they were") == 3, said

        other = tmp_path / "other"
        other.write_text("# two now\nfourth\n\nfifth\n")
        os.rename(other, keys)
        follows(service, "fourth", "third")
        assert status(service, "fifth") == 200
        assert "2 API keys are in force" in capfd.readouterr().err
    finally:
        service.stop()


def test_a_hang_up_makes_it_look_and_not_end(tmp_path, capfd):
    keys = tmp_path / "keys"
    keys.write_text("first\n")
    service = start_service("--api-keys", str(keys), workers=1)
    try:
        os.kill(service.worker_pid("coordinator"), signal.SIGHUP)
        eventually(lambda: "1 API keys are in force" in capfd.readouterr().err, 5, "the line in the log")
        assert status(service, "first") == 200
    finally:
        service.stop()
    assert service.process.returncode == 0
