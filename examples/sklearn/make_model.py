"""Trains a random forest on scikit-learn's irises and saves it as the file given."""

import sys

import joblib
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

if __name__ == "__main__":
    irises = load_iris()
    forest = RandomForestClassifier(n_estimators=20, random_state=0).fit(irises.data, irises.target_names[irises.target])
    joblib.dump(forest, sys.argv[1])
