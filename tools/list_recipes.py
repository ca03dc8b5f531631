"""Write the names and first lines of all recipes, which `scorefield recipes` prints without importing torch.

Run `python tools/list_recipes.py` after a recipe was added or renamed; it writes src/scorefield/recipes/summaries.json.
"""

from __future__ import annotations

import json
from pathlib import Path

from scorefield.recipes import summaries

TARGET = Path(__file__).parent.parent / "src/scorefield/recipes/summaries.json"

if __name__ == "__main__":
    TARGET.write_text(json.dumps(summaries(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
