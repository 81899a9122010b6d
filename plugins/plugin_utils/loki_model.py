# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the loki role writes down, worked out of its settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.fushuma.production.plugins.plugin_utils.sizes import UNITS, bytes_of

Settings = Mapping[str, Any]

DATA = "/var/lib/loki"
FOLDER = "/etc/loki"
PROGRAMS = "/opt/loki"
# The role's own program on the host; isolated, so that nothing beside it is taken for a module.
RUN = ("/usr/bin/python3", "-I", "/usr/local/lib/loki-production.py")
DURATION = re.compile(r"([1-9]\d*)([smhdw])")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds(text: str) -> int:
    """``744h`` as seconds; 0 for what is no such text."""
    found = DURATION.fullmatch(text)
    return int(found[1]) * SECONDS[found[2]] if found else 0


def host_of(address: str) -> str:
    """An address as it stands before a port."""
    return f"[{address}]" if ":" in address else address


def has_rules(settings: Settings) -> bool:
    """Whether the ruler is among the parts that run here."""
    return settings["loki_target"] in ("all", "backend")


def uses(settings: Settings, storage: str) -> bool:
    return any(one["storage"] == storage for one in settings["loki_schema"])


def model(settings: Settings) -> dict[str, Any]:
    """All that the role's files and its probes are made of. ``settings`` hold all defaults."""
    base = url(settings)
    return {
        "config": config(settings),
        "release": release(settings),
        "rules": rules(settings),
        "environment": environment(settings),
        "memory": bytes_of(settings["loki_memory"]),
        "probes": probes(settings, base),
        "base": base,
        "url": settings["loki_gateway"].rstrip("/") or base,
    }


def url(settings: Settings) -> str:
    return f"http://{host_of(settings['loki_address'])}:{settings['loki_port']}"


def release(settings: Settings) -> dict[str, str]:
    """Which program it is, where it comes from and where it stands."""
    version = settings["loki_version"]
    if settings["loki_source"] == "repository":
        return {"version": version, "binary": "/usr/bin/loki"}
    archive = settings["loki_archive"]
    digest = archive["sha256"].lower()
    # By its digest too: another file of the same version is another program.
    name = f"{version}-{digest[:12]}"
    source = archive["source"] if "://" in archive["source"] else f"/var/cache/loki-{name}.archive"
    return {"version": version, "binary": f"{PROGRAMS}/{name}/loki", "source": source, "sha256": digest}


def environment(settings: Settings) -> dict[str, str]:
    """Secrets, by the names under which the configuration asks for them."""
    found = {}
    if uses(settings, "s3"):
        given = settings["loki_s3"]
        found = {"LOKI_S3_ACCESS_KEY": given["access_key"], "LOKI_S3_SECRET_KEY": given["secret_key"]}
    if told := [one for one in settings["loki_alertmanagers"] if one["user"]]:
        found["LOKI_ALERTMANAGER_PASSWORD"] = told[0]["password"]
    return found


def probes(settings: Settings, base: str) -> list[dict[str, Any]]:
    """What has to hold: it is ready, removes what is too old, and understands all rules."""
    found: list[dict[str, Any]] = [
        {"http": f"{base}/ready", "body": "ready", "timeout": settings["loki_ready_within"]},
        {"http": f"{base}/config", "body": "retention_enabled: true"},
    ]
    if has_rules(settings) and settings["loki_rules"]:
        # By a program that repeats what Loki says of a query it does not understand.
        found.append({"exec": [*RUN, "rules", f"{base}/loki/api/v1/rules"]})
    return found


def rules(settings: Settings) -> dict[str, Any]:
    """The rules as Prometheus has them in files."""
    groups = [
        {
            "name": group["name"],
            "interval": group["interval"],
            "rules": [{name: value for name, value in rule.items() if value} for rule in group["rules"]],
        }
        for group in settings["loki_rules"]
    ]
    return {"groups": groups}


def config(settings: Settings) -> dict[str, Any]:
    """config.yml, as Loki 3 and 4 read it."""
    cluster, address = settings["loki_cluster"], settings["loki_address"]
    # Its own parts talk by gRPC, which nobody else needs where it is alone.
    inside = address if cluster else "127.0.0.1"
    found: dict[str, Any] = {
        "auth_enabled": False,
        "target": settings["loki_target"],
        "server": {
            "http_listen_address": address,
            "http_listen_port": settings["loki_port"],
            "grpc_listen_address": inside,
            "grpc_listen_port": settings["loki_grpc_port"],
            "log_level": settings["loki_log_level"],
            "graceful_shutdown_timeout": "10s",
        },
        "common": {
            "instance_addr": inside,
            "path_prefix": DATA,
            "replication_factor": cluster["replicas"] if cluster else 1,
            "ring": {"kvstore": {"store": "memberlist" if cluster else "inmemory"}},
        },
        "storage_config": storage(settings),
        "schema_config": {"configs": [period(one) for one in settings["loki_schema"]]},
        "ingester": {
            "lifecycler": {"min_ready_duration": "0s"},
            "wal": {
                "enabled": True,
                "dir": f"{DATA}/wal",
                "flush_on_shutdown": True,
                # What was not written out is read again at a start; more at once than this goes to the store first.
                "replay_memory_ceiling": f"{bytes_of(settings['loki_memory']) // 2 // UNITS['mb']}MB",
            },
            "chunk_idle_period": "30m",
            "max_chunk_age": "2h",
        },
        "limits_config": limits(settings),
        "compactor": compactor(settings),
        "ruler": ruler(settings),
        "query_range": {"results_cache": {"cache": {"embedded_cache": {"enabled": True, "max_size_mb": 64}}}},
        "analytics": {"reporting_enabled": False},
    }
    if cluster:
        found["common"]["compactor_grpc_address"] = f"{host_of(cluster['compactor'])}:{settings['loki_grpc_port']}"
        found["memberlist"] = {
            "bind_addr": [address],
            "bind_port": cluster["port"],
            "advertise_addr": address,
            "advertise_port": cluster["port"],
            "join_members": [f"{host_of(one)}:{cluster['port']}" for one in cluster["peers"]],
        }
    return found


def storage(settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = {
        # Loki 4 has another default, with which a folder of Loki 3 is not found.
        "use_thanos_objstore": False,
        "filesystem": {"directory": f"{DATA}/chunks"},
        "tsdb_shipper": {"active_index_directory": f"{DATA}/tsdb-index", "cache_location": f"{DATA}/tsdb-cache"},
    }
    if any(one["store"] == "boltdb-shipper" for one in settings["loki_schema"]):
        places = {"active_index_directory": f"{DATA}/boltdb-index", "cache_location": f"{DATA}/boltdb-cache"}
        found["boltdb_shipper"] = places
    if uses(settings, "s3"):
        given = settings["loki_s3"]
        found["aws"] = {
            "endpoint": given["url"].partition("://")[2].rstrip("/"),
            "insecure": given["url"].startswith("http://"),
            "bucketnames": given["bucket"],
            "region": given["region"],
            "access_key_id": "${LOKI_S3_ACCESS_KEY}",
            "secret_access_key": "${LOKI_S3_SECRET_KEY}",
            "s3forcepathstyle": given["path_style"],
        }
        if given["ca_file"]:
            found["aws"]["http_config"] = {"ca_file": given["ca_file"]}
    return found


def period(one: Settings) -> dict[str, Any]:
    return {
        "from": one["from"],
        "store": one["store"],
        "object_store": one["storage"],
        "schema": one["version"],
        "index": {"prefix": "index_", "period": "24h"},
    }


def limits(settings: Settings) -> dict[str, Any]:
    keeps = settings["loki_retention"]
    given = {name: value.upper() if name in SIZES else value for name, value in settings["loki_limits"].items()}
    return {
        "retention_period": keeps["period"],
        **({"retention_stream": [dict(one) for one in keeps["streams"]]} if keeps["streams"] else {}),
        "reject_old_samples": True,
        "allow_structured_metadata": True,
        "max_line_size_truncate": True,
        "volume_enabled": True,
        # Labels are what the shipper says; none is made up.
        "discover_service_name": [],
        **given,
    }


SIZES = ("per_stream_rate_limit", "per_stream_rate_limit_burst", "max_line_size")


def compactor(settings: Settings) -> dict[str, Any]:
    cluster = settings["loki_cluster"]
    found = {
        "working_directory": f"{DATA}/compactor",
        "compaction_interval": "10m",
        "retention_enabled": True,
        "retention_delete_delay": "2h",
        "delete_request_store": settings["loki_schema"][-1]["storage"],
    }
    if cluster and settings["loki_target"] == "all":
        works = cluster["compactor"] == settings["loki_address"]
        found["horizontal_scaling_mode"] = "main" if works else "worker"
    return found


def ruler(settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = {
        "enable_api": True,
        "rule_path": f"{DATA}/rules-tmp",
        "evaluation_interval": "1m",
        "storage": {"type": "local", "local": {"directory": f"{FOLDER}/rules"}},
        "wal": {"dir": f"{DATA}/ruler-wal"},
        "datasource_uid": "loki",
    }
    if told := settings["loki_alertmanagers"]:
        found["alertmanager_url"] = ",".join(f"{one['scheme']}://{one['address']}" for one in told)
        found["enable_alertmanager_v2"] = True
        client: dict[str, Any] = {}
        if users := [one["user"] for one in told if one["user"]]:
            client = {"basic_auth_username": users[0], "basic_auth_password": "${LOKI_ALERTMANAGER_PASSWORD}"}
        if any(one["insecure"] for one in told):
            client["tls_insecure_skip_verify"] = True
        found |= {"alertmanager_client": client} if client else {}
    return found
