pytest_plugins = ["tests.kit.services", "tests.kit.brokers", "tests.kit.processes", "tests.kit.clients"]
