import pickle

from runtime.errors import ConfigurationError


def test_a_configuration_error_comes_whole_out_of_another_process() -> None:
    error = pickle.loads(pickle.dumps(ConfigurationError(["first fault", "second fault"])))
    assert (error.faults, str(error)) == (("first fault", "second fault"), "first fault\nsecond fault")
