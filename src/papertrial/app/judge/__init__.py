"""Judgement by people: a database of studies (`store`), what goes into it (`outputs`), and its pages (`pages`)."""
