# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Checks the Helm chart: `kubernetes.py CHART VERSION RULES…`, run by `cargo xtask lint` with the libraries of setup/chart_tools.rs.

Helm itself lints the chart and renders it with several sets of values. What comes out is held against the schemas of Kubernetes, and of the
Prometheus Operator's definitions, with no field allowed that they do not have. A check that refuses nothing is worth nothing: each object is
then broken in several ways, and each has to be refused.
"""

import copy
import json
import sys

import helm_python as helm
import jsonschema
import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1 as operator

# The oldest that the chart says it is for (Chart.yaml, kubeVersion) and a new one.
KUBERNETES = ["1.25", "1.37"]

VALUES = {
    "defaults": {},
    "a ServiceMonitor, with passwords": {
        "monitor": {
            "kind": "ServiceMonitor",
            "labels": {"release": "prometheus"},
            "endpoint": {
                "basicAuth": {
                    "username": {"name": "migscope-scrape", "key": "username"},
                    "password": {"name": "migscope-scrape", "key": "password"},
                },
                "tlsConfig": {
                    "ca": {"secret": {"name": "migscope-scrape", "key": "ca.crt"}},
                    "serverName": "migscope",
                },
            },
        },
        "rules": {"downtimeBudgetSeconds": 2, "runbookBase": "https://wiki.example/migscope/"},
        "web": {"configSecret": "migscope-web", "scheme": "https"},
        "probes": {"kind": "tcp"},
        "imagePullSecrets": [{"name": "registry"}],
        "seLinuxType": "spc_t",
        "nodeSelector": {"kubevirt.io/schedulable": "true"},
        "affinity": {"nodeAffinity": {}},
    },
    "privileged, watched by nobody": {
        "monitor": {"kind": "none"},
        "rules": {"enabled": False},
        "probes": {"kind": "none"},
        "privileged": True,
        "tolerations": [],
        "priorityClassName": "",
    },
}

# Values that the chart's schema has to refuse.
REFUSED = [
    {"monitor": {"kind": "podmonitor"}},
    {"capabilities": ["CAP_BPF"]},
    {"capabilites": ["BPF"]},
    {"monitor": {"interval": "often"}},
    {"image": {"repository": ""}},
    {"probes": {"enabled": True}},
]

# What the sets of values above have to bring, by kind.
EXPECTED = {
    "defaults": {"ConfigMap", "DaemonSet", "PodMonitor", "PrometheusRule", "ServiceAccount"},
    "a ServiceMonitor, with passwords": {
        "ConfigMap", "DaemonSet", "PrometheusRule", "Service", "ServiceAccount", "ServiceMonitor",
    },
    "privileged, watched by nobody": {"ConfigMap", "DaemonSet", "ServiceAccount"},
}


# The rule that the value rules.downtimeBudgetSeconds sets.
BUDGET = "fleet:vfio_migration_downtime_budget_seconds:default"


class Complaint(Exception):
    """What is wrong, for people."""


def closed(schema):
    """The schema, with no room for fields that it does not name."""
    if isinstance(schema, dict):
        if "properties" in schema and "additionalProperties" not in schema:
            schema["additionalProperties"] = False
        for value in schema.values():
            closed(value)
    elif isinstance(schema, list):
        for value in schema:
            closed(value)
    return schema


def validator_of_operator():
    """By kind, what holds an object against the Prometheus Operator's definition of it."""
    found = {}
    for kind in ["PodMonitor", "ServiceMonitor", "PrometheusRule"]:
        schema = closed(getattr(operator, kind).model_json_schema(by_alias=True))
        found[kind] = jsonschema.Draft202012Validator(schema)
    return found


OPERATOR = validator_of_operator()


def refusals(thing):
    """Why an object is no good: nothing, if it is."""
    if thing.get("apiVersion", "").startswith("monitoring.coreos.com/"):
        errors = OPERATOR[thing["kind"]].iter_errors(thing)
        return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]
    found = []
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"Kubernetes {version}: {'/'.join(map(str, error.path))}: {error.message}")
    return found


def rendered(chart, values):
    things = []
    for path, text in sorted(chart.render(values, name="release", namespace="monitoring").items()):
        if path.endswith("NOTES.txt"):
            continue
        things.extend(thing for thing in yaml.safe_load_all(text) if thing is not None)
    return things


def lint(path, values, name):
    report = helm.lint(path, values, strict=True, kube_version=f"v{KUBERNETES[-1]}.0")
    for message in report["messages"]:
        # An icon is for catalogues of charts.
        if message["severity"] >= 2 or (message["severity"] == 1 and "icon" not in message["error"]):
            raise Complaint(f"helm lint, {name}: {message['path']}: {message['error']}")
    if report["errors"]:
        raise Complaint(f"helm lint, {name}: {report['errors']}")


def broken(thing):
    """An object with something wrong in it, in several ways: what is wrong, and the object."""
    extra = copy.deepcopy(thing)
    extra["speck"] = {}
    yield "a field that there is not", extra
    label = copy.deepcopy(thing)
    label["metadata"]["labels"] = ["a", "list"]
    yield "a list for labels", label
    deep = {
        "DaemonSet": lambda it: it["spec"]["template"]["spec"]["containers"][0].update(securityContexts={}),
        "Service": lambda it: it["spec"]["ports"][0].update(port="metrics"),
        "PodMonitor": lambda it: it["spec"]["podMetricsEndpoints"][0].update(intervall="15s"),
        "ServiceMonitor": lambda it: it["spec"]["endpoints"][0].update(interval="often"),
        "PrometheusRule": lambda it: it["spec"]["groups"][0]["rules"][0].update(four="5m"),
    }
    if thing["kind"] in deep:
        wrong = copy.deepcopy(thing)
        deep[thing["kind"]](wrong)
        yield "something wrong deep in it", wrong


def check_mutants(things, name):
    tried = 0
    for thing in things:
        for what, wrong in broken(thing):
            tried += 1
            if not refusals(wrong):
                raise Complaint(f"{name}: {thing['kind']} with {what} is not refused")
    return tried


def check_schema(chart):
    for values in REFUSED:
        try:
            chart.validate_schema(chart.merge_values(values))
        except helm.HelmError:
            continue
        raise Complaint(f"the chart's schema does not refuse {json.dumps(values)}")


def adapted(groups, values):
    """The groups of the checkout, with what the values change in them."""
    groups = copy.deepcopy(groups)
    for rule in (rule for group in groups for rule in group["rules"]):
        if "downtimeBudgetSeconds" in values and rule.get("record") == BUDGET:
            rule["expr"] = f"vector({values['downtimeBudgetSeconds']})"
        if "annotations" in rule:
            annotations = rule["annotations"]
            annotations["runbook_url"] = values.get("runbookBase", "") + annotations["runbook_url"]
    return groups


def check_rules(thing, groups, name):
    """The PrometheusRule has the rules of the checkout, all of them and no others."""
    if thing["spec"]["groups"] != groups:
        raise Complaint(f"{name}: the PrometheusRule has other rules than dashboards/prometheus")
    if not any(rule.get("record") == BUDGET for group in groups for rule in group["rules"]):
        raise Complaint(f"no rule records {BUDGET}, which the chart's values set")


def main():
    path, version, *rules = sys.argv[1:]
    groups = []
    for name in rules:
        with open(name, encoding="utf-8") as file:
            groups.extend(yaml.safe_load(file)["groups"])
    tried = 0
    with helm.Chart.load(path) as chart:
        for key in ["version", "appVersion"]:
            if chart.metadata[key] != version:
                raise Complaint(f"Chart.yaml: {key} is {chart.metadata[key]}, the workspace's is {version}")
        check_schema(chart)
        for name, values in VALUES.items():
            lint(path, values, name)
            things = rendered(chart, values)
            kinds = {thing["kind"] for thing in things}
            if kinds != EXPECTED[name]:
                raise Complaint(f"{name}: these were made: {sorted(kinds)}")
            for thing in things:
                for refusal in refusals(thing):
                    raise Complaint(f"{name}: {thing['kind']}: {refusal}")
            tried += check_mutants(things, name)
            for thing in things:
                if thing["kind"] == "PrometheusRule":
                    check_rules(thing, adapted(groups, values.get("rules", {})), name)
    print(f"{path}: {len(VALUES)} sets of values; {tried} broken objects and {len(REFUSED)} broken values were refused")


if __name__ == "__main__":
    try:
        main()
    except (Complaint, helm.HelmError) as complaint:
        sys.exit(f"error: {complaint}")
