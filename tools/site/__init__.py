"""The documentation as a site: `make docs`. Pages are written by hand in docs/, or made here from the registry, the
docstrings and the evidence when the site is built (`hooks`); `python -m tools.site` renews what is kept in files.

    hooks       what MkDocs calls: adds the made pages, and fills `<!-- made: name -->` on those written by hand
    papers      a page for each paper
    reference   the API reference, a page for each layer
    lists       the lists on other pages: baselines, extras, options of training
    markup      blocks of a report (`study.html_page`) as Markdown
    outputs     runs the examples whose output is shown exactly, and writes it anew
    pictures    runs the commands of the gallery, and takes its pictures
"""
