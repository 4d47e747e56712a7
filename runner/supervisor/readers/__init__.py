"""Readers: what a line of output means. Each takes a line and returns readings, or None if the form is not its own.

    stream       readers of one stream in order: the objects of a line, then the forms of text, then pairs
    grammar      numbers, units, names of metrics and of steps
    prefixes     labels of launchers and loggers in front of a line
    objects      JSON objects and Python dicts, also several on one line, and what was nearly one
    keras        Keras: bars and lines of an epoch
    boosting     XGBoost, LightGBM, CatBoost
    sklearn      scikit-learn's verbose output: iterations, SGD's epochs, tables
    tables       Stable-Baselines3's boxes; epochs of Ultralytics YOLO, fastai and spaCy
    pytorch      the examples of PyTorch: MNIST, ImageNet, and the loops of its tutorials
    fairseq      fairseq's log, as JSON and as text
    solvers      residuals of PETSc and OpenFOAM
    optuna       trials of Optuna
    bars         tqdm's postfix, Lightning's bars
    pairs        other lines of `name: number` and `name=number` that hold a step
    patterns     the user's own regular expressions

A reader keeps the little state that its form needs (the epoch of a header) and does no I/O. Text is read only where its
form is unmistakable; `pairs` waits until a form came three times with rising steps. Times, rates, sizes, versions and
addresses are never metrics (`grammar`). A metric is named as the program names it.
"""
