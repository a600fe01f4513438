"""What axe finds wrong with a page for people who do not see, hear or move as most do."""

from pathlib import Path

AXE = Path(__file__).parents[1] / "web" / "node_modules" / "axe-core" / "axe.min.js"


def serious(page):
    """Serious and critical violations of what is on the page now, in words."""
    if not page.evaluate("'axe' in window"):
        # Injected by the test itself, past the page's security policy.
        page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run({resultTypes: ['violations']})")
    assert len(found["passes"]) > 8
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}"
        for one in found["violations"]
        if one["impact"] in {"serious", "critical"}
    ]
