pytest_plugins = ["tests.kit.services", "tests.kit.processes", "tests.kit.clients"]
