import ast
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "selftrain"


def test_opencv_has_one_thread_wherever_it_is_used() -> None:
    program = "import selftrain.corpus.inspect, cv2; print(cv2.getNumThreads())"
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert shown.stdout == "1\n"
    importers = {
        path.name
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import) and any(name.name == "cv2" for name in node.names)
    }
    assert importers == {"opencv.py"}
