from hypothesis import settings

pytest_plugins = [
    "tests.kit.services",
    "tests.kit.brokers",
    "tests.kit.processes",
    "tests.kit.clients",
    "tests.kit.browser",
]

# No test is about time: a machine that is busy is no finding.
settings.register_profile("watchout", deadline=None)
settings.load_profile("watchout")
