"""The asset graph as lines of text, so that no change to it goes unseen.

Renew the list on purpose: python -m retail_platform_tests.golden.assets > retail_platform_tests/golden/assets.txt
"""

from retail_platform.orchestration.build import build_definitions
from retail_platform.settings import Settings


def asset_listing() -> str:
    """One line per asset: key, group, owners, the assets that it reads from, its checks."""
    definitions = build_definitions(Settings())
    specs = {spec.key: spec for spec in definitions.resolve_all_asset_specs()}
    graph = definitions.resolve_asset_graph()
    lines = []
    for key in sorted(specs):
        node, spec = graph.get(key), specs[key]
        parents = ", ".join(sorted(parent.to_user_string() for parent in node.parent_keys)) or "nothing"
        checks = ", ".join(sorted(check.name for check in node.check_keys)) or "none"
        name, owners = key.to_user_string(), ", ".join(spec.owners)
        lines.append(f"{name} | group {spec.group_name} | {owners} | from {parents} | checks {checks}\n")
    return "".join(lines)


if __name__ == "__main__":
    print(asset_listing(), end="")
