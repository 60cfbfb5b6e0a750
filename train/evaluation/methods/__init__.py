"""The methods that an evaluation compares: fusers, restoration then fusion, models, and folders of results."""
