"""What the binding believes of the C ABI is what include/handoff.h says."""

import ctypes
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

from handoff import _errors, _log, _native

INCLUDE = Path(__file__).resolve().parents[3] / "include"

# Declared, and not for this binding.
NOT_BOUND = {
    # Hooks would be callbacks from C: what Python raises in one is swallowed, and it could not wait for a coroutine.
    *("handoff_on_drain", "handoff_on_seal", "handoff_on_resume", "handoff_on_parked", "handoff_on_confirmed"),
    # No signal handler of Python's runs inside it.
    "handoff_serve",
    # Its memory ends with the handle, and a memoryview may live longer: the binding maps the descriptor itself.
    "handoff_get_state",
}

TYPES = {
    "void": None,
    "int": ctypes.c_int,
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "size_t": ctypes.c_size_t,
    "handoff_log_fn": _native.LogFunction,
    "handoff_destroy_fn": ctypes.c_void_p,
    "void *": ctypes.c_void_p,
    "char *": ctypes.c_char_p,
    "handoff *": ctypes.c_void_p,
    "handoff * *": ctypes.POINTER(ctypes.c_void_p),
    "handoff_config *": ctypes.c_void_p,
    "uint64_t *": ctypes.POINTER(ctypes.c_uint64),
    "handoff_readiness *": ctypes.POINTER(_native.Readiness),
    "handoff_event *": ctypes.POINTER(_native.RawEvent),
    "handoff_connection *": ctypes.POINTER(_native.RawConnection),
}
# Memory that the function writes into, or gives back: not a string for ctypes.
BUFFERS = {("handoff_errmsg", "result"), ("handoff_errmsg", 1), ("handoff_detect_role", 2)}


def header():
    text = (INCLUDE / "handoff.h").read_text()
    return re.sub(r"/\*.*?\*/|//[^\n]*|#[^\n]*", "", text, flags=re.S)


def ctype(declared):
    """The ctypes of a declaration "const char *name", with or without its name."""
    words = re.findall(r"\w+|\*", declared)
    words = [word for word in words if word not in ("const", "struct")]
    end = len(words) - words[::-1].index("*") if "*" in words else 1
    return TYPES[" ".join(words[:end])]


def functions():
    """Name, result and arguments of each."""
    for found in re.finditer(r"^([\w *]+?)\b(handoff_\w+)\(([^()]*)\);", header(), re.M):
        result, name, arguments = found.groups()
        yield name, result, [] if arguments.strip() == "void" else arguments.split(",")


def enums():
    """The values of each enum, without the prefix that all of its names have."""
    for found in re.finditer(r"typedef enum (\w+) \{(.*?)\}", header(), re.S):
        yield found[1], {name: int(value) for name, value in re.findall(r"HANDOFF_(\w+) = (-?\d+)", found[2])}


class Header(unittest.TestCase):
    def test_every_function_is_bound_with_its_types_or_named_as_not(self):
        declared = {}
        for name, result, arguments in functions():
            if name in NOT_BOUND or name.startswith("handoff_supervisor_"):
                continue
            expected = [ctype(argument) for argument in arguments]
            returned = ctype(result + "x")
            for function, place in BUFFERS:
                if function == name and place == "result":
                    returned = ctypes.c_void_p
                elif function == name:
                    expected[place] = ctypes.POINTER(ctypes.c_char)
            declared[name] = (returned, tuple(expected))
        self.assertEqual(declared, _native.PROTOTYPES)
        self.assertGreater(len(declared), 20)

    def test_what_is_not_bound_is_declared(self):
        self.assertLessEqual(NOT_BOUND, {name for name, _, _ in functions()})

    def test_the_loaded_functions_have_these_types(self):
        library = _native.library()
        for name, (result, arguments) in _native.PROTOTYPES.items():
            function = getattr(library, name)
            self.assertEqual((function.restype, tuple(function.argtypes)), (result, arguments), name)

    def test_every_number_is_that_of_the_header(self):
        known = dict(enums())

        def without(prefix, enum):
            return {name[len(prefix) :]: value for name, value in known[enum].items()}

        def ours(enum):
            return {member.name: member.value for member in enum}

        self.assertEqual(known["handoff_results"], ours(_native.Result))
        self.assertEqual(known["handoff_errors"], ours(_native.ErrorCode))
        self.assertEqual(without("PHASE_", "handoff_phases"), ours(_native.Phase))
        self.assertEqual(without("EVENT_", "handoff_events"), ours(_native.EventKind))
        self.assertEqual(without("READY_", "handoff_ready_flags"), ours(_native.ReadyFlag))
        self.assertEqual(without("EVENT_", "handoff_event_flags"), ours(_native.EventFlag))
        self.assertEqual(without("MODE_", "handoff_modes"), ours(_native.Mode))
        self.assertEqual(without("FORKS_", "handoff_forks"), ours(_native.Forks))
        self.assertLessEqual(ours(_native.Option).items(), without("OPT_", "handoff_options").items())
        self.assertEqual(set(known["handoff_log_levels"].values()), set(_log.levels))
        self.assertEqual(int(re.search(r"#define HANDOFF_ABI (\d+)", (INCLUDE / "handoff.h").read_text())[1]), _native.ABI)

    def test_every_error_has_its_own_exception(self):
        codes = dict(enums())["handoff_errors"].values()
        classes = {code: type(_errors.error(code, "f", "d")) for code in codes}
        self.assertEqual(len(set(classes.values())), len(classes))
        self.assertNotIn(_errors.Error, classes.values())
        self.assertIs(type(_errors.error(-999, "f", "d")), _errors.Error)

    def test_the_structs_have_the_layout_of_the_compiler(self):
        structs = {
            "handoff_readiness": _native.Readiness,
            "handoff_event": _native.RawEvent,
            "handoff_connection": _native.RawConnection,
        }
        lines, expected = [], []
        for name, struct in structs.items():
            lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
            expected.append(f"{name} {ctypes.sizeof(struct)}")
            declared = re.search(rf"typedef struct {name} \{{(.*?)\}}", header(), re.S)[1]
            fields = re.findall(r"(\w+);", declared)
            self.assertEqual(fields, [field[0] for field in struct._fields_])
            for field in fields:
                size = f"sizeof((({name} *)0)->{field})"
                lines.append(f'printf("{name}.{field} %zu %zu\\n", offsetof({name}, {field}), {size});')
                expected.append(f"{name}.{field} {getattr(struct, field).offset} {getattr(struct, field).size}")
        with tempfile.TemporaryDirectory() as directory:
            source, program = Path(directory, "layout.c"), Path(directory, "layout")
            source.write_text("#include <handoff.h>\n#include <stdio.h>\nint main(void) {" + "\n".join(lines) + "}\n")
            subprocess.run(["cc", "-I", INCLUDE, "-o", program, source], check=True)
            said = subprocess.run([program], check=True, capture_output=True, text=True).stdout
        self.assertEqual(said.splitlines(), expected)


if __name__ == "__main__":
    unittest.main()
