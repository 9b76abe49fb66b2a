"""The two ways in which a command ends before it has done its work."""


class Ended(Exception):
  """Says why, in one sentence.

  Attributes:
    status: exit status of the program.
    sentence: for the person, without a full line of its own.
  """

  def __init__(self, status: int, sentence: str) -> None:
    super().__init__(sentence)
    self.status = status
    self.sentence = sentence


class Interrupted(BaseException):
  """Ctrl-C or SIGTERM came; nothing but the top of the program catches it.

  Attributes:
    status: exit status of the program, 128 and the number of the signal.
  """

  def __init__(self, status: int) -> None:
    super().__init__(status)
    self.status = status
