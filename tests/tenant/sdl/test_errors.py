"""Errors: all at once, each with its place, what is known, and what to write."""

import pytest

from tenant.sdl import SdlRefused, as_json, as_text, parse, problem_body
from tests.tenant.sdl.samples import ADDRESS, ALL, GPU, TWO, WEB


def refusal(source: str | bytes, *, strict: bool = False) -> SdlRefused:
    """The refusal of a file that must be refused."""
    with pytest.raises(SdlRefused) as caught:
        parse(source, strict=strict)
    return caught.value


@pytest.mark.parametrize("name", sorted(ALL))
def test_samples_are_accepted_strictly(name: str) -> None:
    """Our own files are good in both modes and warn of nothing."""
    assert parse(ALL[name], strict=True).hash == parse(ALL[name].encode()).hash
    assert parse(ALL[name]).warnings == ()


CASES = [
    (WEB, "port: 8080", "port: 80-90", "wrong_type", "services.web.expose[0].port"),
    (WEB, "port: 8080", "port: 0", "bad_port", "services.web.expose[0].port"),
    (WEB, "size: 512Mi", "size: 512mb", "bad_quantity", "profiles.compute.web.resources.memory.size"),
    (WEB, "image: nginx:1.27", 'image: ""', "no_image", "services.web.image"),
    (WEB, "count: 2", "count: 0", "total_cpu", "deployment.web.anywhere.count"),
    (WEB, "profile: web", "profile: wbe", "no_compute_profile", "deployment.web.anywhere.profile"),
    (WEB, "denom: uact", "denom: é", "bad_denom", "profiles.placement.anywhere.pricing.web.denom"),
    (WEB, "amount: 1000", "amount: 0", "price_not_positive", "profiles.placement.anywhere.pricing.web.amount"),
    (WEB, "amount: 1000", "amount: 10000001", "price_too_high", "profiles.placement.anywhere.pricing.web.amount"),
    (WEB, "GREETING=", "9LIVES=", "bad_env", "services.web.env[0]"),
    (WEB, "global: true", "global: maybe", "wrong_type", "services.web.expose[0].to[0].global"),
    (WEB, "global: true", "global: false", "no_global", "services"),
    (WEB, "www.example.com", "WWW.example.com", "bad_hostname", "services.web.expose[0].accept"),
    (WEB, 'version: "2.0"', 'version: "1.0"', "bad_version", "version"),
    (WEB, 'version: "2.0"', "", "no_version", "version"),
    (WEB, "deployment:", "deploymnt:", "unknown_key", "deploymnt"),
    (WEB, "    image:", "    image: x\n    image:", "duplicate_key", "services.web.image"),
    (WEB, "units: 0.5", "units: 0.001", "out_of_range", "profiles.compute.web.resources.cpu.units"),
    (GPU, "nvidia:", "nvidai:", "unknown_vendor", "profiles.compute.big.resources.gpu.attributes.vendor.nvidai"),
    (GPU, "model: a100", "model: RTX 4090", "bad_model", "profiles.compute.big.resources.gpu.attributes.vendor.nvidia[1].model"),
    (
        GPU,
        "interface: sxm",
        "interface: sxm5",
        "bad_quantity",
        "profiles.compute.big.resources.gpu.attributes.vendor.nvidia[0].interface",
    ),
    (GPU, "units: 2", "units: 0", "gpu_units", "profiles.compute.big.resources.gpu.units"),
    (GPU, "units: 2", "units: 25", "out_of_range", "profiles.compute.big.resources.gpu.units"),
    (GPU, "class: beta3", "class: gold", "bad_class", "profiles.compute.big.resources.storage[1].attributes.class"),
    (GPU, "mount: /dev/shm", "mount: /data", "duplicate_mount", "services.train.params.storage.shm.mount"),
    (GPU, "mount: /dev/shm", "mount: shm", "bad_mount", "services.train.params.storage.shm.mount"),
    (TWO, "min_window: 24h", "min_window: soon", "bad_window", "reclamation.min_window"),
    (TWO, "username:", "user_name:", "credentials", "services.api.credentials.username"),
    (TWO, '["off"]', '["off", "500"]', "off_alone", "services.api.expose[0].http_options.next_cases"),
    (
        TWO,
        "max_body_size: 2097152",
        "max_body_size: 209715200",
        "http_limit",
        "services.api.expose[0].http_options.max_body_size",
    ),
    (TWO, "permissions:", "tee: sgx\n      permissions:", "bad_tee", "services.db.params.tee"),
    (TWO, "permissions:", "tee: cpu-gpu\n      permissions:", "tee_gpu", "services.db.params.tee"),
    (ADDRESS, "ip: front", "ip: back", "no_endpoint", "services.dns.expose[0].to[0].ip"),
    (ADDRESS, "kind: ip", "kind: dns", "bad_endpoint_kind", "endpoints.front.kind"),
    (ADDRESS, "ip: front", "service: x", "endpoint_unused", "endpoints.front"),
]


@pytest.mark.parametrize(("source", "old", "new", "code", "path"), CASES)
def test_each_error_has_code_path_and_place(source: str, old: str, new: str, code: str, path: str) -> None:
    """One wrong word gives its own error, at its path and on a line of the file, with a fix and a caret."""
    assert old in source
    text = source.replace(old, new, 1)
    refused = refusal(text)
    found = [p for p in refused.errors if p.code == code]
    assert found, [(p.code, p.path) for p in refused.errors]
    assert found[0].path == path
    assert found[0].fix
    assert 1 <= found[0].line <= text.count("\n") + 1
    shown = as_text(found[0], refused.source, "app.yaml")
    assert shown.startswith(f"app.yaml:{found[0].line}:{found[0].column}: error: ")
    assert "^" in shown


def test_all_errors_come_at_once_in_file_order() -> None:
    """Five mistakes give five errors, sorted by line, with the nearest known word where there is one."""
    text = WEB.replace("image: nginx:1.27", "image:").replace("8080", "0").replace("512Mi", "512mb").replace("0.5", "x")
    text = text.replace("profile: web", "profile: wbe")
    refused = refusal(text)
    codes = [p.code for p in refused.errors]
    assert {"no_image", "bad_port", "bad_quantity", "no_compute_profile"} <= set(codes)
    assert [p.line for p in refused.errors] == sorted(p.line for p in refused.errors)
    assert next(p for p in refused.errors if p.code == "no_compute_profile").nearest == "web"
    assert next(p for p in refused.errors if p.found == "512mb").fix == "size: 512Mi"


def test_ignored_keys_warn_with_what_will_not_happen() -> None:
    """A key that the reference ignores is a warning that says what will not happen; strict makes it an error."""
    text = WEB.replace("    env:", "    depends_on: [db]\n    volumes: [a:/b]\n    cmd: [x]\n    evn: []\n    env:", 1)
    warnings = {p.path.split(".")[-1]: p for p in parse(text).warnings}
    assert set(warnings) == {"depends_on", "volumes", "cmd", "evn"}
    assert "start in no order" in warnings["depends_on"].message
    assert "nothing is mounted" in warnings["volumes"].message
    assert "own command runs" in warnings["cmd"].message
    assert warnings["evn"].nearest == "env"
    assert warnings["depends_on"].line == 5
    strict = refusal(text, strict=True)
    assert {p.code for p in strict.errors} == {"unknown_key"}
    assert len(strict.errors) == 4
    assert parse(text).hash == parse(WEB).hash


def test_json_and_problem_json() -> None:
    """Errors are JSON objects, and the body of an RFC 9457 answer."""
    refused = refusal(WEB.replace("port: 8080", "port: 0"))
    body = problem_body(refused)
    assert body["status"] == 422
    assert body["code"] == "sdl_refused"
    assert body["errors"] == [as_json(p) for p in refused.errors]
    assert set(as_json(refused.errors[0])) == {
        "code",
        "severity",
        "path",
        "line",
        "column",
        "message",
        "found",
        "allowed",
        "nearest",
        "fix",
    }


def test_yaml_that_is_none() -> None:
    """Text that is no YAML, no UTF-8, empty or too large is refused with a place, never a traceback."""
    for source, code in (
        (b"", "empty"),
        (b"~", "empty"),
        (b"a: [1", "yaml_syntax"),
        (b"\xff\xfe\x00", "yaml_text"),
        (b"a: \x01", "yaml_text"),
        (b"#" * 300_000, "too_large"),
        (b"[" * 300, "too_deep"),
        (b"a: *x", "unknown_anchor"),
        (b"&x [*x]", "anchor_in_itself"),
        (b"[" + b"a," * 30_000 + b"]", "too_many_nodes"),
        (b"- a", "wrong_type"),
        (b"%YAML 1.2\n---\na: 1", "yaml_version"),
        ("a: x\ud800", "no_version"),
    ):
        refused = refusal(source)
        assert code in {p.code for p in refused.errors}, (source[:20], refused.errors)


def test_merge_keys_and_anchors() -> None:
    """Anchors and merge keys give what was written out; a key of one's own wins over a merged one."""
    compute = WEB.index("    web:\n      resources")
    text = WEB[:compute] + "    base: &base" + WEB[compute + len("    web:") :]
    text = text.replace("  placement:", "    web:\n      <<: *base\n  placement:", 1)
    assert parse(text).hash == parse(WEB).hash
    assert "merge_type" in {p.code for p in refusal(text.replace("<<: *base", "<<: 5")).errors}


def test_a_service_without_placement_need_not_exist() -> None:
    """A deployment entry with no placement asks for nothing, as in the reference."""
    assert parse(WEB.replace("deployment:", "deployment:\n  ghost: {}")).hash == parse(WEB).hash


def test_first_document_alone_is_read() -> None:
    """What stands after the first document is not looked at, as in the reference."""
    assert parse(WEB + "---\n{[ not yaml").hash == parse(WEB).hash


@pytest.mark.parametrize(
    ("name", "hash_"),
    [
        # web and address are what the npm parser gives too; in gpu it orders GPUs otherwise, and it knows no reclamation.
        ("web", "d2299a9f88900d05d26c485c8e6a81d354defcb79c6e9ed0b08b75925bde64b1"),
        ("address", "24822c29232321ba9b78c066dc0b4430be86300f7dd6b5cf6971db0e1e41f26a"),
        ("gpu", "2fa9190f013fc69b882d270ca34afb320465cf4e24a814e7a7b03c5ba167fcb4"),
        ("two", "6b805699de1bb9f5aabc517d2215bdd7c516addd68f097763b6c0addf09adea7"),
    ],
)
def test_hashes_stay(name: str, hash_: str) -> None:
    """The hashes of our own files never change: leases stand on them."""
    assert parse(ALL[name]).hash == hash_
